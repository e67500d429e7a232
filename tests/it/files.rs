//! The files of the daemon: how large they become, who may use them, and what is made of those that are damaged.
