// What every page of these tests has; the test puts `config` before it:
//   page      the name of this page, which every report carries
//   reports   where reports are posted to
//   redirect  what sends a request on to the URL behind it
//   next      the page to go to afterwards, or null
"use strict";

async function report(of, seen) {
  const text = JSON.stringify({ page: config.page, of, ...seen });
  await fetch(config.reports, { method: "POST", mode: "no-cors", body: text });
}

function leave() {
  if (config.next !== null) {
    location.href = config.next;
  }
}
