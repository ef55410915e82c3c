"use strict";

// Everything that is shown goes through textContent: names and errors come from elsewhere.

const $ = (id) => document.getElementById(id);

function make(tag, text, name) {
  const e = document.createElement(tag);
  if (text !== undefined) e.textContent = text;
  if (name) e.className = name;
  return e;
}

function replace(id, list) { $(id).replaceChildren(...list); }

function count(n) {
  if (n >= 1e6) return (n / 1e6).toFixed(1) + " M";
  if (n >= 1e4) return (n / 1e3).toFixed(1) + " k";
  return n >= 100 || Number.isInteger(n) ? String(Math.round(n)) : n.toFixed(1);
}

function bytes(n) {
  let unit = 0;
  while (n >= 1000 && unit < 4) { n /= 1000; unit++; }
  return count(n) + " " + ["B", "kB", "MB", "GB", "TB"][unit] + "/s";
}

function ms(n) {
  if (!n) return "–";
  if (n < 1) return Math.round(n * 1000) + " µs";
  return n < 1000 ? n.toFixed(1) + " ms" : (n / 1000).toFixed(1) + " s";
}

function tile(value, name) {
  const e = make("div", undefined, "tile");
  e.append(make("b", value), make("span", name));
  return e;
}

function pool(p) { return `${p.in_use} of ${p.max} in use, ${p.idle} idle` + (p.waiting ? `, ${p.waiting} wait` : ""); }

function member(m) {
  const card = make("article", undefined, "card");
  card.dataset.role = m.role;
  card.append(make("h3", `${m.database} ${m.id} · ${m.host}`));
  const kind = m.role === "excluded" || !m.usable ? "bad" : "good";
  card.append(make("span", m.role, "badge " + kind));
  if (m.in_sync && !m.usable) card.append(" ", make("span", "breaker open", "badge bad"));
  const dl = make("dl");
  for (const [name, value] of [
    ["in sync", m.in_sync ? "yes" : "no"], ["running", m.running], ["read latency", ms(m.latency_ms)], ["reads", count(m.reads)], ["writes", count(m.writes)],
    ["broken connections", count(m.errors)], ["read pool", pool(m.read_pool)], ["write pool", pool(m.write_pool)], ["weight", m.weight],
  ]) dl.append(make("dt", name), make("dd", value));
  card.append(dl);
  if (m.state && m.state !== "in sync") card.append(make("p", m.state, "muted"));
  if (m.differences) card.append(make("p", `differed from the leader: ${m.differences} times, see the events`, "muted"));
  if (m.last_error) card.append(make("p", "last error: " + m.last_error, "muted"));
  return card;
}

function row(name, w) {
  const tr = make("tr");
  for (const text of [name, count(w.rate), ms(w.mean_ms), ms(w.p50_ms), ms(w.p99_ms)]) tr.append(make("td", text));
  return tr;
}

function show(s) {
  const [text, kind] = s.draining ? ["shutting down", "warn"] : s.paused ? ["paused", "warn"] : s.ready ? ["ready", "good"] : ["no usable leader", "bad"];
  $("state").textContent = text;
  $("state").className = "badge " + kind;
  document.title = `${text} – pgdist gateway`;
  $("view").textContent = `${s.leader} leads · epoch ${s.epoch}, term ${s.term} · acknowledged ${s.acked || "–"} · ${s.version} · since ${new Date(s.since).toLocaleString()}`;
  replace("members", s.members.map(member));
  replace("rates", [
    tile(count(s.rates.statements), "statements/s"), tile(count(s.rates.transactions), "transactions/s"),
    tile(bytes(s.rates.received), "from clients"), tile(bytes(s.rates.sent), "to clients"),
  ]);
  replace("work", ["read", "write", "commit"].map((name) => row(name, s.rates.work[name])));
  const all = Object.values(s.clients).reduce((a, b) => a + b, 0);
  replace("clients", [
    tile(`${count(all)} of ${count(s.max_clients)}`, "clients"), ...["active", "waiting", "idle in transaction", "idle"].map((k) => tile(count(s.clients[k]), k)),
    tile(count(s.pinned), "keep a connection"), tile(count(s.prepared), "prepared texts"),
  ]);
  $("errors-section").hidden = s.errors.length === 0;
  replace("errors", s.errors.map((e) => tile(count(e.count), e.class)));
  replace("events", s.events.map((e) => {
    const li = make("li");
    const at = make("time", new Date(e.at).toLocaleTimeString());
    at.dateTime = e.at;
    li.append(at, make("span", e.database ? `${e.database}: ${e.text}` : e.text));
    return li;
  }));
}

async function look() {
  try {
    const answer = await fetch("/status.json", { cache: "no-store", signal: AbortSignal.timeout(5000) });
    if (!answer.ok) throw new Error(`status ${answer.status}`);
    show(await answer.json());
  } catch (e) {
    $("state").textContent = "the gateway does not answer";
    $("state").className = "badge bad";
  }
  setTimeout(look, 1000);
}

look();
