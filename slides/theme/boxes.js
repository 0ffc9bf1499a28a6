// Where everything on a slide lies, for PowerPoint: cards, texts with their runs, and pictures, in pixels of the slide.
(slide) => {
  const root = document.getElementById(slide).querySelector(".slide");
  const origin = root.getBoundingClientRect();
  const place = (rect) => ({ x: rect.left - origin.left, y: rect.top - origin.top, width: rect.width, height: rect.height });
  const hex = (text) => { const m = text.match(/rgba?\(([^)]+)\)/); if (!m) return null; const v = m[1].split(/[ ,/]+/).map(Number); return v[3] === 0 ? null : "#" + v.slice(0, 3).map((c) => Math.round(c).toString(16).padStart(2, "0")).join(""); };
  const shape = (element, pseudo) => {
    const style = getComputedStyle(element, pseudo);
    return { fill: hex(style.backgroundColor), line: parseFloat(style.borderTopWidth) > 0 ? hex(style.borderTopColor) : null, radius: parseFloat(style.borderTopLeftRadius) || 0, round: style.borderTopLeftRadius === "50%" };
  };
  const shapes = [];
  for (const element of root.querySelectorAll(".card, .n, .square, .way i")) {
    if (element.matches(".title .figure")) continue;
    shapes.push({ ...place(element.getBoundingClientRect()), ...shape(element) });
    const bar = getComputedStyle(element, "::before");
    if (element.matches(".card") && bar.content !== "none") {
      const box = place(element.getBoundingClientRect());
      shapes.push({ x: box.x, y: box.y + 6, width: 7, height: box.height - 12, fill: hex(bar.backgroundColor), line: null, radius: 0 });
    }
  }
  const head = root.querySelector(".head");
  if (head) {
    const box = place(head.getBoundingClientRect());
    shapes.push({ x: box.x, y: box.y + box.height - 1, width: box.width, height: 1.5, fill: hex(getComputedStyle(head).borderBottomColor), line: null, radius: 0 });
    shapes.push({ x: box.x, y: box.y + box.height - 2, width: 132, height: 5, fill: hex(getComputedStyle(head, "::after").backgroundColor), line: null, radius: 2 });
  }
  const runsOf = (block) => {
    const runs = [];
    const walker = document.createTreeWalker(block, NodeFilter.SHOW_TEXT);
    for (let node = walker.nextNode(); node; node = walker.nextNode()) {
      const style = getComputedStyle(node.parentElement);
      const text = style.whiteSpace.startsWith("pre") ? node.data : node.data.replace(/\s+/g, " ");
      if (!text) continue;
      const upper = style.textTransform === "uppercase";
      runs.push({ text, upper, size: parseFloat(style.fontSize), weight: Number(style.fontWeight), italic: style.fontStyle === "italic", colour: hex(style.color), family: style.fontFamily.split(",")[0].replace(/["']/g, "").trim(), link: node.parentElement.closest("a")?.getAttribute("href") ?? null });
    }
    return runs;
  };
  const texts = [...root.querySelectorAll("[data-text]")].filter((block) => block.textContent.trim() && block.getClientRects().length).map((block) => {
    const style = getComputedStyle(block), range = document.createRange();
    range.selectNodeContents(block);
    const rects = [...range.getClientRects()], edge = block.getBoundingClientRect();
    const lines = new Set(rects.map((rect) => Math.round(rect.top / 4))).size;
    // As wide as the block inside its padding, as high as its lines: a stretched grid cell would put them elsewhere.
    const left = edge.left + parseFloat(style.paddingLeft), right = edge.right - parseFloat(style.paddingRight);
    const top = Math.min(...rects.map((rect) => rect.top)), bottom = Math.max(...rects.map((rect) => rect.bottom));
    const box = place(block.matches(".n") ? edge : { left, top, width: right - left, height: bottom - top });
    return { ...box, role: block.dataset.text, runs: runsOf(block), align: style.textAlign, leading: parseFloat(style.lineHeight) / parseFloat(style.fontSize) || 1.35, lines, quoted: block.tagName === "Q" };
  });
  const pictures = [...root.querySelectorAll("figure svg, .film video")].map((picture) => ({ ...place(picture.getBoundingClientRect()), alt: picture.getAttribute("aria-label") }));
  return { shapes, texts, pictures };
}
