// Keeps the whole page, so that it opens offline. The export writes VERSION and FILES above.
"use strict";

const PREFIX = `reslite ${self.registration.scope} `;
const CACHE = PREFIX + VERSION;
// Static servers may not send these, which give the page threads.
const HEADERS = {
  "Cross-Origin-Opener-Policy": "same-origin",
  "Cross-Origin-Embedder-Policy": "require-corp",
  "Cross-Origin-Resource-Policy": "same-origin",
};

self.addEventListener("install", (event) => {
  const keep = async () => {
    const cache = await caches.open(CACHE);
    await cache.addAll(FILES.map((path) => new Request(path, { cache: "no-cache" })));
    await self.skipWaiting();
  };
  event.waitUntil(keep());
});

self.addEventListener("activate", (event) => {
  const clean = async () => {
    const old = (await caches.keys()).filter((one) => one.startsWith(PREFIX) && one !== CACHE);
    await Promise.all(old.map((one) => caches.delete(one)));
    await self.clients.claim();
  };
  event.waitUntil(clean());
});

self.addEventListener("fetch", (event) => {
  const { method, url } = event.request;
  if (method === "GET" && url.startsWith(self.registration.scope)) event.respondWith(answer(url));
});

async function answer(url) {
  const { origin, pathname } = new URL(url);
  const path = pathname.endsWith("/") ? `${pathname}index.html` : pathname;
  const cache = await caches.open(CACHE);
  const found = (await cache.match(origin + path)) ?? (await fetch(url));
  const headers = new Headers(found.headers);
  for (const [name, value] of Object.entries(HEADERS)) headers.set(name, value);
  return new Response(found.body, { status: found.status, statusText: found.statusText, headers });
}
