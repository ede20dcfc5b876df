"use strict";
// Nothing here is needed to read the page: without it all retailers follow one another and tables keep their order.
document.querySelectorAll("table[data-sortable]").forEach((table) => {
  table.querySelectorAll("thead button").forEach((button) => {
    button.addEventListener("click", () => {
      const head = button.closest("th"), index = [...head.parentNode.children].indexOf(head);
      const down = head.getAttribute("aria-sort") !== "descending";
      head.parentNode.querySelectorAll("th").forEach((th) => th.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const of = (row) => row.children[index].dataset.v ?? row.children[index].textContent.trim();
      const body = table.tBodies[0], rows = [...body.rows];
      rows.sort((a, b) => {
        const x = of(a), y = of(b);
        if (x === "" || y === "") return (x === "") - (y === "");
        const numeric = x !== "" && y !== "" && !isNaN(x) && !isNaN(y);
        return (numeric ? x - y : x.localeCompare(y)) * (down ? -1 : 1);
      });
      rows.forEach((row) => body.append(row));
    });
  });
});

const shops = [...document.querySelectorAll(".shop")], tabs = [...document.querySelectorAll(".shops button")];
const show = (index, focus) => {
  shops.forEach((shop, i) => { shop.hidden = i !== index; });
  tabs.forEach((tab, i) => { tab.setAttribute("aria-selected", i === index); tab.tabIndex = i === index ? 0 : -1; });
  document.querySelectorAll(".toc a[data-part]").forEach((a) => { a.hash = a.dataset.part + "-" + index; });
  if (focus) tabs[index].focus();
};
if (tabs.length) {
  document.querySelector(".shops").hidden = false;
  tabs.forEach((tab, i) => {
    tab.addEventListener("click", () => show(i));
    tab.addEventListener("keydown", (e) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[e.key];
      if (step) show((i + step + tabs.length) % tabs.length, true);
    });
  });
  show(0);
}

const links = [...document.querySelectorAll(".toc a")];
if ("IntersectionObserver" in window) {
  const seen = new IntersectionObserver((entries) => {
    const entry = entries.find((e) => e.isIntersecting);
    if (entry) links.forEach((a) => {
      if (a.hash === "#" + entry.target.id) a.setAttribute("aria-current", "true"); else a.removeAttribute("aria-current");
    });
  }, { rootMargin: "-15% 0px -70% 0px" });
  document.querySelectorAll("section.part").forEach((part) => seen.observe(part));
}
