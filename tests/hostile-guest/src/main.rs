//! A guest that attacks its virtual machine monitor from inside of a real VM.
//!
//! It boots in place of a Linux kernel and takes from the command line which attacks to run: `attack=NAME[,NAME...]`, and
//! `seed=NUMBER` for other random numbers. On the serial port it says `begin NAME` and `end NAME: ok`, or what is wrong:
//! after each attack it resets all devices and checks that they work as they should. Then it ends by an orderly reset.
#![no_std]
#![no_main]

use core::panic::PanicInfo;

mod attacks;
mod boot;
mod cpu;
mod device;
mod exceptions;
mod health;
mod mem;
mod random;
mod serial;

use attacks::{ATTACKS, Machine};
use random::Random;
use serial::say;

/// What [`boot`] jumps to, with the address of the boot parameters.
#[unsafe(no_mangle)]
extern "C" fn main(boot_params: u64) -> ! {
    cpu::map_memory();
    exceptions::install();
    let line = boot::command_line(boot_params);
    let machine = Machine {
        devices: device::find(),
        memory: boot::memory(boot_params),
        random: Random::new(line.number("seed").unwrap_or(1)),
    };
    let memory = machine.memory;
    say!("memory to {:#x} and {:#x}", memory.low_end, memory.high_end);
    for device in machine.devices.iter() {
        say!("device {} at {:#x}", device.id, device.base);
    }
    for name in line.words("attack") {
        match ATTACKS.iter().find(|(known, _)| *known == name) {
            Some((_, run)) => {
                say!("begin {name}");
                run(&machine);
                serial::restore();
                match health::check(&machine) {
                    Ok(()) => say!("end {name}: ok"),
                    Err(what) => say!("end {name}: {what}"),
                }
            }
            None => say!("unknown attack {name}"),
        }
    }
    say!("done");
    cpu::reset()
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    serial::restore();
    say!("{info}");
    cpu::crash()
}
