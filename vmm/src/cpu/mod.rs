//! What a vCPU looks like to the guest before its first instruction.

pub mod cpuid;
mod msrs;
mod regs;

pub use msrs::set_msrs;
pub use regs::{set_entry, wire_lapic};
