"""What stages and server must agree on; imports none of the other rooms."""
