// Small comforts. Every page works without this file.
"use strict";

const done = "Copied";

function prepare(root) {
  for (const button of root.querySelectorAll("button.copy[hidden]")) {
    button.hidden = false;
  }
}

async function copy(button) {
  const before = button.getAttribute("aria-label");
  try {
    await navigator.clipboard.writeText(button.dataset.copy);
  } catch {
    // Without TLS browsers have no clipboard: select the text beside the button, for Ctrl-C.
    const text = button.parentElement.querySelector("code");
    if (text !== null) {
      getSelection().selectAllChildren(text);
    }
    return;
  }
  button.classList.add("done");
  button.setAttribute("aria-label", done);
  setTimeout(() => {
    button.classList.remove("done");
    button.setAttribute("aria-label", before);
  }, 1500);
}

document.addEventListener("click", (event) => {
  const button = event.target.closest("button.copy");
  if (button !== null) {
    event.preventDefault();
    copy(button);
  }
  for (const menu of document.querySelectorAll("details.menu[open]")) {
    if (!menu.contains(event.target)) {
      menu.open = false;
    }
  }
});

document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") {
    for (const menu of document.querySelectorAll("details.menu[open]")) {
      menu.open = false;
      menu.querySelector("summary").focus();
    }
  }
});

document.addEventListener("htmx:load", (event) => prepare(event.target));
document.addEventListener("DOMContentLoaded", () => {
  prepare(document);
  // On narrow screens the filters would push the results off the first screen.
  if (matchMedia("(max-width: 760px)").matches) {
    for (const fold of document.querySelectorAll("details.fold")) {
      fold.open = false;
    }
  }
});
