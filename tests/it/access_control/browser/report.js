// The start of every page of these tests; the test puts `config` before it:
//   page      the name of this page, which every report carries
//   reports   the URL that reports are posted to
//   redirect  a URL prefix that redirects a request to the URL after it
//   next      the page to open afterwards, or null
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
