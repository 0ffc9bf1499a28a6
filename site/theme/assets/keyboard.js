// Two labels of the theme open the navigation and the search on a narrow screen: they are made to be reached by the Tab
// key (the theme itself opens them with Enter). And what scrolls sideways takes the focus, so that arrow keys scroll it.
const buttons = { __drawer: "Navigation", __search: "Search" };
for (const [name, words] of Object.entries(buttons)) {
  for (const label of document.querySelectorAll(`label[for="${name}"].md-header__button`)) {
    label.tabIndex = 0;
    label.setAttribute("role", "button");
    label.setAttribute("aria-label", words);
  }
}

const scrollers = document.querySelectorAll(".highlight pre, pre.output, .wide");
function markScrollers() {
  for (const element of scrollers) {
    if (element.scrollWidth > element.clientWidth) {
      element.tabIndex = 0;
      element.setAttribute("role", "group");
      element.setAttribute("aria-label", element.matches(".wide") ? "Table, scrolls sideways" : "Code, scrolls sideways");
    } else {
      element.removeAttribute("tabindex");
    }
  }
}
markScrollers();
addEventListener("resize", markScrollers);
