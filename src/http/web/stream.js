// The WebSocket. After a lost connection it resumes after the last received event, so that no event is lost or repeated.

const MIN_RECONNECT_DELAY_MS = 500;
const MAX_RECONNECT_DELAY_MS = 10_000;
// A suspended daemon neither responds nor closes the connection.
const PING_AFTER_MS = 25_000;
const PONG_TIMEOUT_MS = 15_000;

class Stream {
  // `on.hello(hello, isFresh)`, `on.event(event)`, `on.gap(gap)`, `on.state(state, text)`, `on.message(message)`.
  constructor(on) {
    this.on = on;
    this.epoch = null;
    this.seq = 0;
    this.received = 0;
    this.reconnectDelay = MIN_RECONNECT_DELAY_MS;
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

  // Connects. The request before the handshake detects a rejected token, which a browser does not report for a handshake.
  async connect() {
    clearTimeout(this.timer);
    this.timer = null;
    if (this.socket || this.isConnecting) return;
    this.isConnecting = true;
    try {
      this.on.state("wait", "Connecting …");
      const description = await callApi("/describe");
      this.path = description.event_stream.path;
      this.open();
    } catch {
      this.retry();
    } finally {
      this.isConnecting = false;
    }
  }

  open() {
    const query = new URLSearchParams({ onGap: "resync" });
    if (this.cursor) query.set("after", this.cursor);
    const socket = new WebSocket(`${location.protocol.replace("http", "ws")}//${location.host}${this.path}?${query}`, token.subprotocols());
    this.socket = socket;
    socket.onmessage = (message) => socket === this.socket && this.receive(JSON.parse(message.data));
    socket.onclose = () => socket === this.socket && this.handleClose();
    this.startWatchdog();
  }

  // Closes a connection on which nothing is received, not even a pong.
  startWatchdog() {
    clearInterval(this.watch);
    this.receivedAt = performance.now();
    let pingedAt = 0;
    this.watch = setInterval(() => {
      const now = performance.now();
      if (now - this.receivedAt < PING_AFTER_MS) {
        pingedAt = 0;
      } else if (!pingedAt) {
        pingedAt = now;
        this.send({ type: "ping" });
      } else if (now - pingedAt > PONG_TIMEOUT_MS) {
        const silent = this.socket;
        this.handleClose();
        silent?.close();
      }
    }, 5_000);
  }

  receive(message) {
    this.receivedAt = performance.now();
    switch (message.type) {
      case "event":
        this.received += 1;
        // An event with a known sequence number was already received.
        if (message.event.seq <= this.seq) return;
        this.seq = message.event.seq;
        this.on.event(message.event);
        break;
      case "hello": {
        const isFresh = this.isFresh;
        const { epoch, seq } = partsOf(message.cursor);
        this.reconnectDelay = MIN_RECONNECT_DELAY_MS;
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
        // A new hello follows; the previous position is invalid.
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

  handleClose() {
    clearInterval(this.watch);
    this.socket = null;
    this.retry();
  }

  retry() {
    if (this.timer !== null) return;
    // The jitter keeps all pages from reconnecting at the same moment.
    const delay = this.reconnectDelay * (0.75 + Math.random() / 2);
    this.reconnectDelay = Math.min(this.reconnectDelay * 2, MAX_RECONNECT_DELAY_MS);
    this.on.state("bad", `Not connected; retrying in ${Math.max(1, Math.round(delay / 1000))} s`);
    this.timer = setTimeout(() => this.connect(), delay);
  }

  // Called when the page becomes visible or the network returns.
  reconnectNow() {
    if (this.timer === null) return;
    this.reconnectDelay = MIN_RECONNECT_DELAY_MS;
    this.connect();
  }
}

function partsOf(cursor) {
  const at = cursor.lastIndexOf("-");
  return { epoch: cursor.slice(0, at), seq: Number(cursor.slice(at + 1)) };
}
