// What the checks measure on the slide that is shown: returns {faults: [[rule, what]], texts, characters}.
// Everything is in pixels of the 1920 x 1080 slide: the page must be open at that size.
(slide) => {
  const SLACK = 2, SMALLEST = 16, ROUND = 0.02;
  const faults = [];
  const fault = (rule, what) => faults.push([rule, what]);
  const short = (text) => JSON.stringify(text.trim().replace(/\s+/g, " ").slice(0, 48));
  const root = document.getElementById(slide).querySelector(".slide");
  const visible = (element) => element.getClientRects().length > 0;

  // --- texts of the page, and what they must stay inside
  const walker = document.createTreeWalker(root, NodeFilter.SHOW_TEXT);
  const words = [];
  for (let node = walker.nextNode(); node; node = walker.nextNode()) {
    const parent = node.parentElement;
    if (!node.data.trim() || parent.closest("svg, style, script") || !visible(parent)) continue;
    const range = document.createRange();
    range.selectNodeContents(node);
    words.push({ node, parent, rects: [...range.getClientRects()] });
  }
  const inside = (rect, frame) => rect.left >= frame.left - SLACK && rect.right <= frame.right + SLACK
    && rect.top >= frame.top - SLACK && rect.bottom <= frame.bottom + SLACK;
  for (const { node, parent, rects } of words) {
    for (let frame = parent; frame && frame !== root.parentElement; frame = frame.parentElement) {
      if (!frame.matches(".card, li, .head, .foot, .main, .words, .line, .slide, pre, figcaption, ol, ul, dl")) continue;
      const style = getComputedStyle(frame), edge = frame.getBoundingClientRect();
      // Serif line boxes are taller than their letters: a list's own line may stick out by a hair, a card never.
      const box = { left: edge.left, right: edge.right, top: edge.top, bottom: edge.bottom };
      if (frame.matches(".card")) { box.top += parseFloat(style.paddingTop) / 2; box.bottom -= parseFloat(style.paddingBottom) / 2; }
      const worst = rects.find((rect) => !inside(rect, box));
      if (worst) { fault("overflow", `${short(node.data)} leaves <${frame.className || frame.tagName.toLowerCase()}>`); break; }
    }
    const size = parseFloat(getComputedStyle(parent).fontSize);
    if (size < SMALLEST) fault("small text", `${short(node.data)} at ${size} px`);
  }

  // --- blocks of text that touch each other
  const blocks = [...root.querySelectorAll("[data-text]")].filter((block) => visible(block) && block.textContent.trim());
  const linesOf = (block) => {
    const range = document.createRange();
    range.selectNodeContents(block);
    return [...range.getClientRects()];
  };
  const lines = blocks.map(linesOf);
  const overlap = (a, b) => Math.min(Math.min(a.right, b.right) - Math.max(a.left, b.left), Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top));
  blocks.forEach((block, i) => blocks.slice(i + 1).forEach((other, j) => {
    if (lines[i].some((a) => lines[i + 1 + j].some((b) => overlap(a, b) > 6))) fault("overlap", `${short(block.textContent)} and ${short(other.textContent)}`);
  }));
  for (const box of root.querySelectorAll(".card")) {
    const edge = box.getBoundingClientRect();
    if (edge.bottom > 1080 || edge.right > 1920) fault("overflow", `card ${box.className} leaves the slide`);
    for (const other of root.querySelectorAll(".card")) {
      if (box === other || box.contains(other) || other.contains(box) || root.matches(".title")) continue;
      if (overlap(edge, other.getBoundingClientRect()) > 1) fault("overlap", `cards ${box.className} and ${other.className}`);
    }
  }
  const quote = root.querySelector(".wisdom q");
  if (quote && linesOf(quote).length && quote.getBoundingClientRect().height > 2.2 * parseFloat(getComputedStyle(quote).lineHeight)) fault("overflow", "wisdom needs more than two lines");
  for (const note of root.querySelectorAll(".notes12 [data-text='Annotations']")) {
    if (note.getBoundingClientRect().height > 2.2 * parseFloat(getComputedStyle(note).lineHeight)) fault("overflow", `${short(note.textContent)} needs more than two lines`);
  }
  const foot = root.querySelector(".foot");
  if (foot && foot.scrollHeight > foot.clientHeight + SLACK) fault("overflow", `the foot needs ${foot.scrollHeight} px, has ${foot.clientHeight}`);

  // --- the figure
  const linear = (v) => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
  const luminance = (c) => 0.2126 * linear(c[0]) + 0.7152 * linear(c[1]) + 0.0722 * linear(c[2]);
  const colour = (text) => { const m = text.match(/rgba?\(([^)]+)\)/); if (!m) return null; const v = m[1].split(/[ ,/]+/).map(Number); return [v[0], v[1], v[2], v[3] ?? 1]; };
  const over = (top, bottom, alpha) => top.slice(0, 3).map((v, i) => v * alpha + bottom[i] * (1 - alpha));
  const contrast = (a, b) => { const [x, y] = [luminance(a), luminance(b)].sort((p, q) => q - p); return (x + 0.05) / (y + 0.05); };
  const need = (size, weight) => (size >= 32 || (size >= 24 && weight >= 600) ? 3 : 4.5);
  const svg = root.querySelector("figure svg");
  if (svg) {
    const view = svg.viewBox.baseVal, shown = svg.getBoundingClientRect();
    const scale = shown.width / view.width;
    if (Math.abs(scale - 1) > ROUND || Math.abs(shown.height / view.height - 1) > ROUND) fault("figure size", `drawn for ${view.width} x ${view.height}, shown at ${shown.width.toFixed(0)} x ${shown.height.toFixed(0)}`);
    const texts = [...svg.querySelectorAll("text")].map((text) => ({ text, box: text.getBoundingClientRect(), data: text.textContent, marker: text.closest("[data-marker]") }));
    for (const { text, box, data } of texts) {
      if (!inside(box, shown)) fault("clipped", `${short(data)} leaves the figure`);
      if (parseFloat(getComputedStyle(text).fontSize) * scale < SMALLEST - 0.3) fault("small text", `${short(data)} in the figure`);
    }
    // A glyph's box has air above and below its letters; only what the letters themselves fill counts.
    const ink = (entry) => { const turned = entry.box.height > entry.box.width && entry.data.length > 2; const h = turned ? 0 : entry.box.height * 0.22; return { left: entry.box.left + 1, right: entry.box.right - 1, top: entry.box.top + h, bottom: entry.box.bottom - h }; };
    texts.forEach((a, i) => texts.slice(i + 1).forEach((b) => { if (overlap(ink(a), ink(b)) > 1) fault("overlap", `${short(a.data)} and ${short(b.data)} in the figure`); }));
    for (const marker of svg.querySelectorAll("[data-marker] circle")) {
      const edge = marker.getBoundingClientRect();
      for (const entry of texts) if (!entry.marker && overlap(edge, ink(entry)) > 2) fault("overlap", `marker ${marker.parentElement.dataset.marker} covers ${short(entry.data)}`);
    }
    // What a text stands on: the last filled shape before it that holds its middle.
    const shapes = [...svg.querySelectorAll("rect, circle, polygon, path, ellipse, text")];
    for (const { text, data } of texts) {
      const box = text.getBBox();
      const turned = text.transform.baseVal.consolidate()?.matrix;
      let middle = svg.createSVGPoint();
      middle.x = box.x + box.width / 2; middle.y = box.y + box.height / 2;
      if (turned) middle = middle.matrixTransform(turned);
      let ground = root.matches(".title") ? [246, 248, 250] : [255, 255, 255];
      for (const shape of shapes.slice(0, shapes.indexOf(text))) {
        if (shape.tagName === "text") continue;
        const style = getComputedStyle(shape), fill = colour(style.fill);
        if (fill && shape.isPointInFill(middle)) ground = over(fill, ground, fill[3] * Number(style.opacity) * Number(style.fillOpacity));
      }
      const style = getComputedStyle(text), front = colour(style.fill);
      const ratio = contrast(front, ground);
      if (ratio < need(parseFloat(style.fontSize), Number(style.fontWeight)) - 0.01) fault("contrast", `${short(data)} in the figure: ${ratio.toFixed(1)} to 1`);
    }
    if (!svg.getAttribute("aria-label")?.trim()) fault("alt", "the figure has no description");
  }
  for (const film of root.querySelectorAll("video, img")) if (!(film.getAttribute("aria-label") || film.alt)?.trim()) fault("alt", `a ${film.tagName.toLowerCase()} has no description`);
  for (const { node, parent } of words) {
    let ground = [250, 250, 250];
    for (let back = parent; back; back = back.parentElement) {
      const fill = colour(getComputedStyle(back).backgroundColor);
      if (fill && fill[3] === 1) { ground = fill; break; }
      if (back === root) { ground = [240, 244, 248]; break; }
    }
    const style = getComputedStyle(parent);
    const ratio = contrast(colour(style.color), ground);
    if (ratio < need(parseFloat(style.fontSize), Number(style.fontWeight))) fault("contrast", `${short(node.data)}: ${ratio.toFixed(1)} to 1`);
  }
  const links = [...root.querySelectorAll("a[href]")].map((link) => link.getAttribute("href"));

  const family = (element) => getComputedStyle(element).fontFamily.split(",")[0].replace(/["']/g, "").trim();
  const style = (element) => getComputedStyle(element).fontStyle;
  const characters = words.map(({ node, parent }) => [family(parent), style(parent), node.data]);
  for (const text of svg ? svg.querySelectorAll("text") : []) characters.push([family(text), style(text), text.textContent]);
  return { faults, characters, links, texts: blocks.map((block) => [block.dataset.text, block.textContent.trim().replace(/\s+/g, " ")]) };
}
