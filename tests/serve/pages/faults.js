// Says what hinders readers of a page, one sentence each; nothing of a page that is well made.
(leastContrast) => {
  const found = new Set();
  const all = (selector) => [...document.querySelectorAll(selector)];
  const name = (each) => each.outerHTML.slice(0, 80);
  const isSeen = (each) => each.checkVisibility({ opacityProperty: true, visibilityProperty: true });
  const expectAll = (selector, isFine, fault) =>
    all(selector).filter((each) => !isFine(each)).forEach((each) => found.add(`${fault}: ${name(each)}`));

  if (!document.documentElement.lang) found.add("no language");
  if (!document.title.trim()) found.add("no title");
  for (const tag of ["h1", "main"]) if (all(tag).length !== 1) found.add(`${all(tag).length} ${tag}`);
  expectAll("[id]", ({ id }) => all(`[id="${id}"]`).length === 1, "same id twice");
  expectAll("input, select, textarea", ({ labels }) => labels.length === 1, "not one label");
  expectAll("button, a[href], summary", (each) => !isSeen(each) || each.innerText.trim(), "says nothing");
  expectAll("img", (each) => each.hasAttribute("alt"), "no text");
  expectAll("svg", (each) => each.closest("[aria-hidden=true]"), "no text");
  for (const key of ["aria-describedby", "aria-labelledby"]) {
    const leads = (each) => each.getAttribute(key).split(" ").every((id) => document.getElementById(id));
    expectAll(`[${key}]`, leads, `${key} leads nowhere`);
  }
  expectAll("a[href^='#']", ({ hash }) => document.getElementById(hash.slice(1)), "leads nowhere");
  const isInline = ({ name }) => name === "style" || name.startsWith("on");
  expectAll("*", ({ attributes }) => ![...attributes].some(isInline), "inline style or script");
  expectAll("script", ({ src }) => src, "inline script");

  const levels = all("h1, h2, h3, h4").filter(isSeen).map(({ tagName }) => Number(tagName[1]));
  levels.forEach((level, place) => {
    if (level > (levels[place - 1] ?? level) + 1) found.add(`h${level} follows h${levels[place - 1]}`);
  });
  const { scrollWidth, clientWidth } = document.documentElement;
  if (scrollWidth > clientWidth) found.add(`wider than the screen by ${scrollWidth - clientWidth}`);

  // Contrast as WCAG 2.2 defines it, of every text with what lies behind it.
  const parse = (color) => color.match(/[\d.]+/g).map(Number);
  const linear = (v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  const luminance = (rgb) => {
    const [r, g, b] = rgb.map((v) => linear(v / 255));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (each) => {
    for (; each; each = each.parentElement) {
      const [r, g, b, alpha = 1] = parse(getComputedStyle(each).backgroundColor);
      if (alpha === 1) return [r, g, b];
      if (alpha > 0) found.add(`half seen through: ${name(each)}`);
    }
    return [255, 255, 255];
  };
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) {
    const each = texts.currentNode.parentElement;
    if (!texts.currentNode.data.trim() || !isSeen(each)) continue;
    const colors = [parse(getComputedStyle(each).color).slice(0, 3), behind(each)];
    const [dark, light] = colors.map(luminance).sort((a, b) => a - b);
    const contrast = (light + 0.05) / (dark + 0.05);
    if (contrast < leastContrast) found.add(`contrast ${contrast.toFixed(2)}: ${name(each)}`);
  }
  return [...found];
}
