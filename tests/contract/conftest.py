"""Properties are tried on as many examples as a quick run allows, however busy the machine is."""

from hypothesis import settings

settings.register_profile("house", deadline=None)
settings.load_profile("house")
