// Looks at the admin page with a real browser, and steers the server that it shows.
// node page.mjs NODE_MODULES CHROMIUM ADMIN_URL MAIN_URL; says each step that was seen, exits 1 at the first that was not.
import { createRequire } from "node:module";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import http from "node:http";

const [modules, chromium, admin, main] = process.argv.slice(2);
const { chromium: driver } = createRequire(join(modules, "x.js"))("playwright-core");
const BOUND = { timeout: 60_000 };
const complaints = [];

const profile = mkdtempSync(join(tmpdir(), "curtsy-page-"));
const context = await driver.launchPersistentContext(profile, {
  executablePath: chromium,
  viewport: { width: 1200, height: 900 },
  args: ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"],
});

function watch(page, into) {
  page.on("console", (message) => { if (["error", "warning"].includes(message.type())) into.push(message.text()); });
  page.on("pageerror", (error) => into.push(String(error)));
}
async function status() {
  const answer = await fetch(`${admin}/status`);
  return answer.json();
}
// A request that goes on until it is cut off.
function held(path) {
  const request = http.get(main + path, { agent: false });
  request.on("error", () => {});
  return request;
}
const seen = (step) => console.log(step);
const text = (page, id, part) => page.waitForFunction(([id, part]) => document.getElementById(id).textContent.includes(part), [id, part], BOUND);
function check(what, holds) { if (!holds) throw new Error(what); }

try {
  const page = await context.newPage();
  watch(page, complaints);
  await page.goto(`${admin}/`);
  await text(page, "phase", "serving");
  await text(page, "link", "live");
  check("one self-contained file", (await page.evaluate(() => performance.getEntriesByType("resource").filter((e) => !e.name.endsWith("/events")).length)) === 0);
  seen("loaded");

  await page.setViewportSize({ width: 360, height: 780 });
  check("nothing to scroll sideways for on a phone", await page.evaluate(() => document.documentElement.scrollWidth <= innerWidth));
  const small = await page.evaluate(() => [...document.querySelectorAll("button, input")].filter((e) => e.getBoundingClientRect().height < 32).length);
  check("large enough to touch", small === 0);
  await page.setViewportSize({ width: 1200, height: 900 });
  await page.emulateMedia({ colorScheme: "dark" });
  const dark = await page.evaluate(() => getComputedStyle(document.documentElement).backgroundColor);
  await page.emulateMedia({ colorScheme: "light" });
  check("light and dark differ", dark !== await page.evaluate(() => getComputedStyle(document.documentElement).backgroundColor));
  seen("phone");

  const first = held("/slow?ms=600000&who=the-first");
  await text(page, "rows", "/slow?ms=600000&who=the-first");
  await text(page, "rows", "active");
  await text(page, "say", "1 of them busy");
  seen("straggler");

  await page.keyboard.press("/");
  check("the filter has the focus", await page.evaluate(() => document.activeElement.id === "filter"));
  await page.keyboard.type("no such path");
  await text(page, "none", "None of them matches.");
  check("filtered", await page.locator("#rows tr").count() === 0);
  await page.keyboard.press("Escape");
  await text(page, "rows", "who=the-first");
  await page.keyboard.press("p");
  check("paused", await page.getAttribute("#pause", "aria-pressed") === "true");
  await page.keyboard.press("p");
  check("goes on", await page.getAttribute("#pause", "aria-pressed") === "false");
  await page.evaluate(() => document.activeElement.blur());
  const reached = [];
  for (let i = 0; i < 6; i++) {
    await page.keyboard.press("Tab");
    reached.push(await page.evaluate(() => document.activeElement.id || document.activeElement.className));
  }
  for (const wanted of ["skip", "pause", "filter"]) check(`${wanted} is reached by Tab: ${reached}`, reached.includes(wanted));
  seen("keyboard");

  const old = await status();
  process.kill(old.pid, "SIGHUP");
  await text(page, "phase", "draining");
  await text(page, "rows", "who=the-first");
  seen("restart");
  first.destroy();
  await text(page, "facts", "generation 1");
  await text(page, "phase", "serving");
  await text(page, "link", "live");
  await text(page, "log", "generation 1");
  seen("successor");

  const second = held("/slow?ms=600000&who=the-second");
  await text(page, "rows", "who=the-second");
  process.kill((await status()).pid, "SIGTERM");
  await text(page, "phase", "draining");
  await text(page, "say", "waiting for 1 request");
  const before = await page.evaluate(() => document.getElementById("progress").value);
  check("a bar for the drain", await page.isVisible("#progress"));
  await page.waitForFunction((before) => document.getElementById("progress").value > before, before, BOUND);
  check("the straggler is named", (await page.textContent("#rows")).includes("/slow?ms=600000&who=the-second"));
  seen("drain");
  check(`complaints: ${complaints.join("; ")}`, complaints.length === 0);

  // The guard itself: what the page does not bring with it does not run.
  const guarded = await context.newPage();
  const violations = [];
  watch(guarded, violations);
  await guarded.goto(`${admin}/`);
  await guarded.evaluate(() => { const evil = document.createElement("script"); evil.textContent = "document.title = 'taken'"; document.head.append(evil); });
  await guarded.waitForTimeout(50);
  check("a script of somebody else's does not run", await guarded.title() !== "taken");
  check("and is complained of", violations.some((text) => text.includes("Content Security Policy")));
  await guarded.close();
  seen("guarded");

  second.destroy();
  await text(page, "link", "looking for a successor");
  await text(page, "log", "stopped");
  seen("stopped");
} catch (error) {
  console.error(error, complaints);
  process.exitCode = 1;
} finally {
  await context.close();
  rmSync(profile, { recursive: true, force: true });
}
