// Keeps the page on this machine, so that it works without a network.

const CACHE = "pcnn";
const PAGE = [
  "./", "app.js", "camera.js", "detection.js", "geometry.js", "icon.svg", "light.js",
  "orientation.js", "pixels.js", "quality.js", "recognition.js", "style.css", "tables.js",
  "views.js", "worker.js", "built/manifest.json",
];

/** The manifest's files, whose names change with their content. */
function builtFiles({ runtime, classifier, detector, landmarks }) {
  return [...Object.values(runtime), classifier, detector, landmarks].map(({ file }) => file);
}

/** Whether an address is one of the page's files: others of a server are never kept. */
function isOurs(address) {
  const { scope } = self.registration;
  const [name] = address.split(/[?#]/, 1);
  return name.startsWith(new URL("built/", scope).href)
    || [...PAGE, "index.html"].some((file) => new URL(file, scope).href === name);
}

async function fill() {
  const cache = await caches.open(CACHE);
  const manifest = await (await fetch("built/manifest.json", { cache: "no-cache" })).json();
  const built = builtFiles(manifest).map((file) => new URL(file, self.registration.scope).href);
  await cache.addAll(PAGE);
  for (const url of built) if (!(await cache.match(url))) await cache.add(url);
  for (const { url } of await cache.keys()) {
    if (!isOurs(url)) await cache.delete(url);
    else if (url.includes("/built/") && !url.endsWith("manifest.json") && !built.includes(url)) {
      await cache.delete(url);
    }
  }
}

async function answer(request) {
  const cache = await caches.open(CACHE);
  const { pathname } = new URL(request.url);
  const steady = pathname.includes("/built/") && !pathname.endsWith("manifest.json");
  const kept = await cache.match(request, { ignoreSearch: true });
  if (steady && kept) return kept;
  try {
    const fresh = await fetch(request);
    if (fresh.ok) await cache.put(request, fresh.clone());
    return fresh;
  } catch (error) {
    if (kept) return kept;
    throw error;
  }
}

self.addEventListener("install", (event) => event.waitUntil(fill().then(() => self.skipWaiting())));
self.addEventListener("activate", (event) => event.waitUntil(self.clients.claim()));
self.addEventListener("fetch", (event) => {
  const { request } = event;
  if (request.method !== "GET" || !isOurs(request.url)) return;
  event.respondWith(answer(request));
});
