//! What a user asks of a container's network.

/// Where a container is connected to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NetworkMode {
    /// Its loopback alone.
    None,
    /// Whatever another running container is connected to, by joining its VM.
    Container(String),
}

/// What a user asks of a container's network.
#[derive(Debug)]
pub struct NetworkOptions {
    /// Where it is connected to.
    pub mode: NetworkMode,
}

impl NetworkOptions {
    /// The container whose VM is joined.
    pub fn joined(&self) -> Option<&str> {
        match &self.mode {
            NetworkMode::Container(owner) => Some(owner),
            NetworkMode::None => None,
        }
    }
}
