//! Turns: their states, invalid messages, resumed threads, and the exit of the app-server during a turn.

mod cut;
mod resume;
mod states;
mod wire;
