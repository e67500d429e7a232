//! Turns: how they go, how they fail, and how they end when their app-server does.

mod cut;
mod life;
mod resume;
mod wire;
