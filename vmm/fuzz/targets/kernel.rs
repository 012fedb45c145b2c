#![no_main]
husk_fuzz::fuzz!("kernel");
