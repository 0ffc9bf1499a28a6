// What the theme opens with a click on a label, the Enter key opens, too; and what scrolls sideways takes the focus, so
// that arrow keys can scroll it.
for (const label of document.querySelectorAll('label[for="__drawer"].md-header__button, label[for="__search"].md-header__button')) {
  label.tabIndex = 0;
  label.setAttribute("role", "button");
  label.setAttribute("aria-label", label.htmlFor === "__drawer" ? "Navigation" : "Search");
  label.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" && event.key !== " ") return;
    event.preventDefault();
    label.click();
  });
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
