//! End-to-end tests: husk and its VMM as a user meets them. A file per subject.
#![expect(clippy::unwrap_used, reason = "it is a test")]

mod broken_guest;
mod check;
mod cni;
mod disks;
mod exit_codes;
mod host_disk;
mod hostile;
mod hostile_guest;
mod images;
mod jail;
mod join;
mod kill9;
mod kill_sweep;
mod life;
mod net;
mod network;
mod network_load;
mod pod;
mod pod_faults;
mod pod_files;
mod programs;
mod run_options;
mod signals;
mod stdio;
mod tty;
mod unprivileged;
mod vmm;
mod vmm_cpu;
mod vmm_memory;
mod vsock;
