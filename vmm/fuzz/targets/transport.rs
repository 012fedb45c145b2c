#![no_main]
husk_fuzz::fuzz!("transport");
