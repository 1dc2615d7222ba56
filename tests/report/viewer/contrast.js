// Contrast ratios by WCAG 2.2 of all that is shown: text 4.5 (1.4.3), curves and borders of controls 3 (1.4.11).
() => {
  const canvas = Object.assign(document.createElement("canvas"), { width: 1, height: 1 }).getContext("2d", {
    willReadFrequently: true,
  });
  const known = new Map();
  const rgba = (colour) => {
    if (!known.has(colour)) {
      canvas.clearRect(0, 0, 1, 1);
      canvas.fillStyle = colour;
      canvas.fillRect(0, 0, 1, 1);
      known.set(colour, canvas.getImageData(0, 0, 1, 1).data);
    }
    return known.get(colour);
  };
  const light = (colour) => {
    const [r, g, b] = [...rgba(colour)]
      .map((part) => part / 255)
      .map((p) => (p <= 0.04045 ? p / 12.92 : ((p + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const groundOf = (node) => {
    for (let at = node; at; at = at.parentElement) {
      const colour = getComputedStyle(at).backgroundColor;
      if (rgba(colour)[3] === 255) return colour;
    }
    return "rgb(255, 255, 255)";
  };
  const ratio = (a, b) => {
    const [x, y] = [light(a), light(b)].sort((m, n) => n - m);
    return (x + 0.05) / (y + 0.05);
  };
  const faint = [];
  let texts = 0;
  const judge = (node, colour, least, what) => {
    const found = ratio(colour, groundOf(node));
    if (found < least) faint.push(`${what}: ${found.toFixed(2)} (${colour} on ${groundOf(node)})`);
  };
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const node = walker.currentNode.parentElement,
      said = walker.currentNode.textContent.trim();
    if (!said || !node.checkVisibility() || node.closest("script, noscript, .unseen, .skip")) continue;
    texts += 1;
    const style = getComputedStyle(node);
    judge(node, node.closest("svg") ? style.fill : style.color, 4.5, said.slice(0, 30));
  }
  for (const node of document.querySelectorAll("input[type=search]"))
    judge(node, getComputedStyle(node, "::placeholder").color, 4.5, "placeholder");
  for (const node of document.querySelectorAll(".series"))
    if (node.checkVisibility()) judge(node, getComputedStyle(node).color, 3, "a curve");
  for (const node of document.querySelectorAll("input, select, button:not(th button):not(.main)"))
    if (node.checkVisibility() && node.type !== "checkbox")
      judge(node.parentElement, getComputedStyle(node).borderColor, 3, "border of a control");
  return { faint, texts, ground: getComputedStyle(document.body).backgroundColor };
};
