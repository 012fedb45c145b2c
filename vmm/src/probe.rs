//! stub
use serde::{Deserialize, Serialize};
/// stub
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Probe {
    /// a
    pub usable: bool,
    /// a
    pub reason: String,
    /// a
    pub remedy: String,
}
/// stub
pub fn probe() -> Probe { Probe { usable: true, reason: String::new(), remedy: String::new() } }
