// The one WebSocket. It goes on behind the last event that was received, so a connection that was lost is not seen.

const FIRST_PAUSE = 500;
const LONGEST_PAUSE = 10_000;
// A daemon that stands still answers nothing and closes nothing.
const ASK_AFTER = 25_000;
const PATIENCE = 15_000;

class Stream {
  // `on.hello(hello, isFresh)`, `on.event(event)`, `on.gap(gap)`, `on.state(word, sentence)`, `on.message(message)`.
  constructor(on) {
    this.on = on;
    this.epoch = null;
    this.seq = 0;
    this.received = 0;
    this.pause = FIRST_PAUSE;
    this.timer = null;
    this.socket = null;
    this.path = `${API}/events`;
    this.isFresh = true;
  }

  get isOpen() {
    return this.socket?.readyState === WebSocket.OPEN;
  }

  get cursor() {
    return this.epoch === null ? null : `${this.epoch}-${this.seq}`;
  }

  // Connects; a request before it finds out what a browser does not tell of a failed handshake: a refused token.
  async connect() {
    clearTimeout(this.timer);
    this.timer = null;
    if (this.socket || this.isAsking) return;
    this.isAsking = true;
    try {
      this.on.state("wait", "Connecting …");
      const description = await ask("/describe");
      this.path = description.event_stream.path;
      this.open();
    } catch {
      this.retry();
    } finally {
      this.isAsking = false;
    }
  }

  open() {
    const query = new URLSearchParams({ onGap: "resync" });
    if (this.cursor) query.set("after", this.cursor);
    const socket = new WebSocket(`ws://${location.host}${this.path}?${query}`, token.subprotocols());
    this.socket = socket;
    socket.onmessage = (message) => socket === this.socket && this.hear(JSON.parse(message.data));
    socket.onclose = () => socket === this.socket && this.lost();
    this.listen();
  }

  // Looks whether the other side still says something.
  listen() {
    clearInterval(this.watch);
    this.heardAt = performance.now();
    let askedAt = 0;
    this.watch = setInterval(() => {
      const now = performance.now();
      if (now - this.heardAt < ASK_AFTER) {
        askedAt = 0;
      } else if (!askedAt) {
        askedAt = now;
        this.send({ type: "ping" });
      } else if (now - askedAt > PATIENCE) {
        const silent = this.socket;
        this.lost();
        silent?.close();
      }
    }, 5_000);
  }

  hear(message) {
    this.heardAt = performance.now();
    switch (message.type) {
      case "event":
        this.received += 1;
        // The same number twice would be the same event twice.
        if (message.event.seq <= this.seq) return;
        this.seq = message.event.seq;
        this.on.event(message.event);
        break;
      case "hello": {
        const isFresh = this.isFresh;
        const { epoch, seq } = partsOf(message.cursor);
        this.pause = FIRST_PAUSE;
        if (isFresh) {
          this.epoch = epoch;
          this.seq = seq;
        }
        this.isFresh = false;
        this.on.state("good", "Live");
        this.on.hello(message, isFresh, seq);
        break;
      }
      case "gap":
        // A new greeting follows; nothing of before goes on.
        this.isFresh = true;
        this.on.gap(message);
        break;
      case "bookmark":
      case "pong":
        break;
      default:
        this.on.message(message);
    }
  }

  send(message) {
    if (this.isOpen) this.socket.send(JSON.stringify(message));
  }

  lost() {
    clearInterval(this.watch);
    this.socket = null;
    this.retry();
  }

  retry() {
    if (this.timer !== null) return;
    // All pages of a daemon that comes back must not come at one moment.
    const pause = this.pause * (0.75 + Math.random() / 2);
    this.pause = Math.min(this.pause * 2, LONGEST_PAUSE);
    this.on.state("bad", `Not connected; again in ${Math.max(1, Math.round(pause / 1000))} s`);
    this.timer = setTimeout(() => this.connect(), pause);
  }

  // The user is back, or the network: no need to wait any longer.
  hurry() {
    if (this.timer === null) return;
    this.pause = FIRST_PAUSE;
    this.connect();
  }
}

function partsOf(cursor) {
  const at = cursor.lastIndexOf("-");
  return { epoch: cursor.slice(0, at), seq: Number(cursor.slice(at + 1)) };
}
