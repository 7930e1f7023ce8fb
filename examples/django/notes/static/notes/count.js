"use strict";

const count = document.getElementById("count");

new EventSource(count.dataset.events).onmessage = (event) => {
  count.textContent = JSON.parse(event.data).notes;
};
