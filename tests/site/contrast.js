// Every visible text of the page with its colour and what lies behind it, both as #rrggbb.
() => {
  const parse = (text) => {
    const [r, g, b, a = 1] = text.match(/[\d.]+/g).map(Number);
    return { r, g, b, a };
  };
  const over = (top, below) =>
    Object.fromEntries([..."rgb"].map((k) => [k, top[k] * top.a + below[k] * (1 - top.a)]).concat([["a", 1]]));
  const hex = (c) => "#" + [c.r, c.g, c.b].map((v) => Math.round(v).toString(16).padStart(2, "0")).join("");
  const ancestors = (element) => (element ? [element, ...ancestors(element.parentElement)] : []);
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    const text = walker.currentNode.textContent.trim();
    if (!text || !element.checkVisibility({ opacityProperty: true, visibilityProperty: true })) continue;
    if (["SCRIPT", "STYLE", "NOSCRIPT"].includes(element.tagName) || element.closest(".md-search__output, .headerlink, .md-clipboard")) continue;
    const chain = ancestors(element).map((each) => getComputedStyle(each));
    const behind = chain.map((style) => parse(style.backgroundColor)).reverse().reduce((below, top) => over(top, below), { r: 255, g: 255, b: 255, a: 1 });
    const colour = parse(chain[0].color);
    colour.a *= chain.reduce((all, style) => all * Number(style.opacity), 1);
    const size = parseFloat(chain[0].fontSize), bold = Number(chain[0].fontWeight) >= 700;
    found.push({ text: text.slice(0, 60), colour: hex(over(colour, behind)), behind: hex(behind), large: size >= 24 || (bold && size >= 18.66) });
  }
  return found;
}
