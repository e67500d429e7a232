//! The methods that codexd calls on the app-server, and the notification that it sends.

/// Introduces a client; answered once for each connection.
pub const INITIALIZE: &str = "initialize";
/// Notification: the answer to [`INITIALIZE`] was received.
pub const INITIALIZED: &str = "initialized";

/// Opens a new thread.
pub const THREAD_START: &str = "thread/start";
/// Loads a thread that has a history.
pub const THREAD_RESUME: &str = "thread/resume";
/// Opens a copy of a thread.
pub const THREAD_FORK: &str = "thread/fork";
/// Reads a thread without loading it.
pub const THREAD_READ: &str = "thread/read";
/// Ends the subscription to a thread, which may then be unloaded.
pub const THREAD_UNSUBSCRIBE: &str = "thread/unsubscribe";
/// Names a thread.
pub const THREAD_NAME_SET: &str = "thread/name/set";
/// Archives a thread, which unloads it and interrupts its turn.
pub const THREAD_ARCHIVE: &str = "thread/archive";
/// Makes an archived thread one that can be opened.
pub const THREAD_UNARCHIVE: &str = "thread/unarchive";
/// Lists the turns of a thread, the newest first.
pub const THREAD_TURNS_LIST: &str = "thread/turns/list";
/// Lists the threads on disk, those of the terminal included, the newest first.
pub const THREAD_LIST: &str = "thread/list";
/// Lists the threads in memory: the cheapest call there is.
pub const THREAD_LOADED_LIST: &str = "thread/loaded/list";
/// Ends the commands that the turns of a thread left running.
pub const THREAD_BACKGROUND_TERMINALS_CLEAN: &str = "thread/backgroundTerminals/clean";

/// Starts a turn.
pub const TURN_START: &str = "turn/start";
/// Adds input to the turn that runs.
pub const TURN_STEER: &str = "turn/steer";
/// Interrupts the turn that runs; the turns of its sub-agents go on.
pub const TURN_INTERRUPT: &str = "turn/interrupt";

/// Lists the models that can be used.
pub const MODEL_LIST: &str = "model/list";
/// Reads the account.
pub const ACCOUNT_READ: &str = "account/read";
/// Reads the limits of the account.
pub const ACCOUNT_RATE_LIMITS_READ: &str = "account/rateLimits/read";
/// Reads the usage of the account.
pub const ACCOUNT_USAGE_READ: &str = "account/usage/read";
/// Reads the configuration, layer by layer.
pub const CONFIG_READ: &str = "config/read";

/// Every method that codexd uses.
pub const ALL: &[&str] = &[
    INITIALIZE,
    INITIALIZED,
    THREAD_START,
    THREAD_RESUME,
    THREAD_FORK,
    THREAD_READ,
    THREAD_UNSUBSCRIBE,
    THREAD_NAME_SET,
    THREAD_ARCHIVE,
    THREAD_UNARCHIVE,
    THREAD_TURNS_LIST,
    THREAD_LIST,
    THREAD_LOADED_LIST,
    THREAD_BACKGROUND_TERMINALS_CLEAN,
    TURN_START,
    TURN_STEER,
    TURN_INTERRUPT,
    MODEL_LIST,
    ACCOUNT_READ,
    ACCOUNT_RATE_LIMITS_READ,
    ACCOUNT_USAGE_READ,
    CONFIG_READ,
];
