// Pictures of the admin page: node page.mjs NODE_MODULES ADMIN_URL MAIN_URL DIRECTORY
//
// The server is loaded by somebody else. Here come a slow request and a WebSocket; pictures while it serves (light, and on a
// phone), then SIGTERM, and one while it drains (dark).
import { createRequire } from "node:module";
import { join } from "node:path";
import http from "node:http";

const [modules, admin, main, directory] = process.argv.slice(2);
const { chromium } = createRequire(join(modules, "x.js"))("playwright-core");
const BOUND = { timeout: 60_000 };

const browser = await chromium.launch({ executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium", args: ["--no-sandbox", "--disable-gpu"] });
const page = await browser.newPage({ viewport: { width: 1200, height: 900 } });
const shoot = (name, more) => page.screenshot({ path: join(directory, `page-${name}.png`), fullPage: true, ...more });
const text = (id, part) => page.waitForFunction(([id, part]) => document.getElementById(id).textContent.includes(part), [id, part], BOUND);
// How many seconds of its life the page has seen.
const seen = (seconds) => page.waitForFunction((seconds) => history.length >= seconds, seconds, BOUND);

const requests = [];
function held(path, headers) {
  const request = http.get(main + path, { agent: false, headers });
  request.on("error", () => {});
  request.on("upgrade", (_, socket) => requests.push(socket));
  requests.push(request);
}

try {
  await page.emulateMedia({ colorScheme: "light" });
  await page.goto(`${admin}/`);
  await text("link", "live");
  held("/slow?ms=60000");
  held("/ws", { Connection: "Upgrade", Upgrade: "websocket", "Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==" });
  await text("rows", "/ws");
  await seen(20);
  await shoot("light");
  await page.setViewportSize({ width: 390, height: 844 });
  await page.waitForTimeout(1_100);
  await shoot("phone");
  await page.setViewportSize({ width: 1200, height: 900 });
  const { pid } = await (await fetch(`${admin}/status`)).json();
  await page.emulateMedia({ colorScheme: "dark" });
  process.kill(pid, "SIGTERM");
  await text("phase", "draining");
  await text("steps", "Idle ones closed");
  await seen(35);
  await shoot("dark");
} finally {
  for (const request of requests) request.destroy();
  await browser.close();
}
