//! One file per command.

pub(crate) mod check;
pub(crate) mod completion;
pub(crate) mod config;
pub(crate) mod container;
pub(crate) mod containerd;
pub(crate) mod exec;
pub(crate) mod images;
pub(crate) mod load;
pub(crate) mod man;
pub(crate) mod network;
pub(crate) mod pull;
pub(crate) mod rmi;
pub(crate) mod run;
pub(crate) mod version;
