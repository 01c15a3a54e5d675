/**
 * How the viewer looks. A page's own --surface, --line, --text, --muted and --accent are taken where it has them; the
 * film itself is black in every theme.
 *
 * @module styles
 */

const LIGHT = "--s: var(--surface, #fff); --l: var(--line, #c4ccd3); --t: var(--text, #14181c); --m: var(--muted, #505b66); --a: var(--accent, #0f6cbd);";
const DARK = "--s: var(--surface, #181d22); --l: var(--line, #3a434c); --t: var(--text, #e8ecf0); --m: var(--muted, #9ea9b4); --a: var(--accent, #5db4ff);";

const RULES = `
:host { ${LIGHT} display: block; position: relative; min-height: 200px; overflow: hidden; color: var(--t);
  font: 13px/1.4 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif; container-type: inline-size; }
@media (prefers-color-scheme: dark) { :host { ${DARK} } }
:host([hidden]) { display: none; }
* { box-sizing: border-box; }
[hidden] { display: none !important; }
.frame { display: flex; flex-direction: column; width: 100%; height: 100%; }
.tools { display: flex; align-items: center; gap: 2px; padding: 4px 6px; background: var(--s); border-bottom: 1px solid var(--l); min-width: 0; }
:host([bare]) .tools { display: none; }
.tools .gap { flex: 1; min-width: 4px; }
.tools .apart { width: 1px; align-self: stretch; margin: 4px 5px; background: var(--l); flex: none; }
button { font: inherit; color: var(--t); background: none; border: 1px solid transparent; border-radius: 6px; padding: 0; width: 32px; height: 32px; flex: none;
  display: inline-flex; align-items: center; justify-content: center; cursor: pointer; }
button:hover { background: color-mix(in srgb, var(--t) 9%, transparent); }
button[aria-pressed="true"], button[aria-checked="true"] { background: color-mix(in srgb, var(--a) 22%, transparent); border-color: color-mix(in srgb, var(--a) 60%, transparent); }
button svg { width: 18px; height: 18px; fill: none; stroke: currentColor; stroke-width: 1.6; stroke-linecap: round; stroke-linejoin: round; }
:focus-visible { outline: 2px solid var(--a); outline-offset: 1px; }
select, input { font: inherit; color: var(--t); accent-color: var(--a); }
select { background: var(--s); border: 1px solid var(--l); border-radius: 6px; height: 32px; padding: 0 6px; min-width: 0; max-width: 190px; text-overflow: ellipsis; }
.more { display: flex; align-items: center; gap: 4px 12px; min-width: 0; }
.more label { display: inline-flex; align-items: center; gap: 6px; color: var(--m); min-width: 0; white-space: nowrap; }
.more input { width: 96px; }
.open { display: none; }
@container (max-width: 1079px) {
  .open { display: inline-flex; }
  .more { position: absolute; z-index: 4; top: 42px; right: 6px; display: none; flex-direction: column; align-items: stretch; gap: 8px; padding: 12px;
    background: var(--s); border: 1px solid var(--l); border-radius: 9px; box-shadow: 0 10px 30px #0006; max-width: calc(100% - 12px); }
  .more.opened { display: flex; }
  .more label { display: grid; grid-template-columns: 84px minmax(0, 1fr); }
  .more input { width: 100%; }
}
@container (max-width: 339px) { .tools .wide { display: none; } }
.stage { position: relative; flex: 1; min-height: 0; overflow: hidden; background: #000; touch-action: none; cursor: crosshair; user-select: none; -webkit-user-select: none; }
.stage[data-tool="window"] { cursor: default; }
.stage[data-tool="pan"] { cursor: grab; }
.stage.held { cursor: grabbing; }
.stage:focus-visible { outline: none; }
.stage:focus-visible::after { content: ""; position: absolute; inset: 0; border: 2px solid #5db4ff; pointer-events: none; }
canvas { position: absolute; inset: 0; width: 100%; height: 100%; display: block; }
.said { position: absolute; pointer-events: none; color: #f2f5f7; font-size: 12px; line-height: 1.45; font-variant-numeric: tabular-nums; max-width: calc(100% - 12px); overflow-wrap: anywhere; }
.said div:not(:empty), .scale > :not(.strip, .unit, :empty) { background: rgb(0 0 0 / 50%); border-radius: 4px; padding: 1px 6px; }
:host([bare]) .about { display: none; }
.about { top: 6px; left: 6px; }
.about .title { color: #c6ced6; }
.now { bottom: 6px; left: 6px; right: 6px; display: flex; justify-content: space-between; align-items: flex-end; gap: 12px; }
.now .set { text-align: right; color: #c6ced6; margin-left: auto; white-space: nowrap; }
.scale { position: absolute; top: 34px; right: 6px; bottom: 64px; max-height: 260px; display: flex; flex-direction: column; align-items: flex-end; pointer-events: none; color: #f2f5f7; font-size: 12px; line-height: 1.3; font-variant-numeric: tabular-nums; text-align: right; }
.scale .strip { width: 12px; flex: 1; min-height: 30px; margin: 4px 0; border: 1px solid #ffffff59; border-radius: 2px; position: relative; }
.scale .unit { position: absolute; right: 16px; padding: 4px 1px; border-radius: 4px; background: rgb(0 0 0 / 50%); top: 50%; writing-mode: vertical-rl; transform: translateY(-50%) rotate(180deg); max-height: 100%; text-align: center; color: #c6ced6; line-height: 1.2; }
.scale .mark { position: absolute; left: -4px; right: -4px; height: 0; border-top: 1px solid #fff; }
@container (max-width: 459px) { .scale .unit { display: none; } .scale { max-height: 150px; } .now .set { display: none; } }
@container (max-width: 339px) { .scale i { display: none; } .scale { max-height: 120px; top: 6px; } }
.empty { position: absolute; inset: 0; display: grid; place-items: center; padding: 24px; text-align: center; color: #c6ced6; font-size: 14px; }
dialog { position: absolute; inset: 0; margin: auto; width: min(520px, calc(100% - 16px)); height: fit-content; max-height: calc(100% - 16px); overflow: auto; padding: 14px 18px 18px; color: var(--t); background: var(--s); border: 1px solid var(--l); border-radius: 10px; box-shadow: 0 12px 40px #0008; z-index: 5; }
dialog header { display: flex; justify-content: space-between; align-items: center; margin-bottom: 6px; }
dialog h2 { font-size: 15px; margin: 0; font-weight: 650; }
dl { display: grid; grid-template-columns: minmax(0, 2fr) minmax(0, 3fr); gap: 3px 16px; margin: 0; }
dt { font-weight: 600; } dd { margin: 0; color: var(--m); }
.unseen { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); white-space: nowrap; }
`;

/** @type {CSSStyleSheet | undefined} */
let sheet;

/** One sheet for all viewers of a page; a strict content security policy lets it through. */
export function styleSheet() {
  if (!sheet) {
    sheet = new CSSStyleSheet();
    sheet.replaceSync(RULES);
  }
  return sheet;
}
