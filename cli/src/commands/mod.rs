//! One file per command.

pub(crate) mod boot;
pub(crate) mod check;
pub(crate) mod completion;
pub(crate) mod config;
pub(crate) mod container;
pub(crate) mod containerd;
pub(crate) mod events;
pub(crate) mod exec;
pub(crate) mod images;
pub(crate) mod info;
pub(crate) mod inspect;
pub(crate) mod load;
pub(crate) mod logs;
pub(crate) mod man;
pub(crate) mod network;
pub(crate) mod port;
pub(crate) mod prune;
pub(crate) mod ps;
pub(crate) mod pull;
pub(crate) mod rmi;
pub(crate) mod run;
pub(crate) mod stats;
pub(crate) mod top;
pub(crate) mod update;
pub(crate) mod version;
