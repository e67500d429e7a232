//! Turns: progress, failure, and the exit of the app-server during a turn.

mod cut;
mod resume;
mod states;
mod wire;
