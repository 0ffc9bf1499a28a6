// How the page behaves. `?export` shows it as the pictures are taken: no controls, nothing moves.
const exporting = /[?&](export|print-pdf)\b/.test(location.search);
Reveal.initialize({
  width: 1920, height: 1080, margin: 0, minScale: 0.05, maxScale: 8, center: false, hash: true, respondToHashChanges: true,
  transition: "none", controls: !exporting, controlsLayout: "edges", progress: false, slideNumber: false, pdfSeparateFragments: false,
  plugins: [RevealNotes],
});

// A film is stepped through: every fragment plays one section and stops at its end; before the first, the poster shows.
const storyOf = (film) => JSON.parse(film.dataset.sections);
function play(film, index) {
  const part = storyOf(film)[index];
  film.currentTime = part.start;
  film.dataset.until = part.end;
  film.play();
}
function light(film) {
  const changes = storyOf(film).flatMap((part) => part.stages);
  const lit = changes.filter(([start]) => start <= film.currentTime + 0.05).at(-1)?.[1];
  const stages = film.closest(".slide").querySelectorAll(".storyboard li");
  stages.forEach((stage, number) => stage.classList.toggle("now", film.currentTime > 0 && number === lit));
}
function rest(film) { film.pause(); film.removeAttribute("data-until"); film.load(); }
document.querySelectorAll("video[data-sections]").forEach((film) => {
  film.addEventListener("timeupdate", () => {
    light(film);
    if (film.dataset.until && film.currentTime >= Number(film.dataset.until) - 0.04) film.pause();
  });
  // A click plays the whole film from its beginning, or pauses it.
  film.addEventListener("click", () => {
    film.removeAttribute("data-until");
    if (film.paused) { if (film.ended) film.currentTime = 0; film.play(); } else film.pause();
  });
});
const filmOf = (event) => event.fragment.closest(".slide").querySelector("video[data-sections]");
const isStep = (event) => event.fragment.classList.contains("film-step");
Reveal.on("fragmentshown", (event) => { if (isStep(event)) play(filmOf(event), Number(event.fragment.dataset.step)); });
Reveal.on("fragmenthidden", (event) => {
  if (!isStep(event)) return;
  const step = Number(event.fragment.dataset.step);
  if (step > 0) play(filmOf(event), step - 1); else rest(filmOf(event));
});
Reveal.on("slidechanged", (event) => event.previousSlide?.querySelectorAll("video[data-sections]").forEach(rest));
