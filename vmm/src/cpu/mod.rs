//! What a vCPU looks like to the guest before its first instruction.
//!
//! CPUID is made of what KVM supports on this host in four steps: the [policy](policy) takes away what no guest gets, the
//! [template](template) what only some hosts of a fleet have, [`xsave`] what the instructions that are left do not need,
//! and [`cpuid`] puts in the VM's own topology and clock frequencies.

pub mod cpuid;
mod msrs;
pub mod policy;
mod regs;
pub mod template;
pub mod xsave;

pub use msrs::{deny as deny_msrs, set_msrs, set_xcr0};
pub use regs::{set_entry, wire_lapic};
