//! An error of QEMU's that stops guests, taken out of a copy of its program.
//!
//! VMRUN may inject an interrupt (AMD64 Architecture Programmer's Manual 2, section 15.20). QEMU delivers it at once, but also leaves
//! its vector in `exception_index` as if it still had to be delivered (`helper_vmrun`, target/i386/tcg/system/svm_helper.c
//! of 10.0.13). An exit from the guest clears that. When the emulator leaves its loop before, as it does for its
//! own timers, the guest gets the interrupt a second time, in the middle of the first one's handler and whether it has
//! interrupts off or not: it takes a lock that it holds, and waits for itself for good.
//!
//! Nobody reads what is left there. So the one store is replaced by an instruction that does nothing.

/// What the compiler made of the place, `None` where addresses are: from the vector's load to the second constant stored after it.
#[rustfmt::skip]
const PLACE: [Option<u8>; 38] = [
    Some(0x41), Some(0x0f), Some(0xb6), Some(0xf4), // movzbl %r12b, %esi: the vector
    Some(0x44), Some(0x89), Some(0xab), None, None, None, None, // mov %r13d, error_code
    Some(0x89), Some(0xb3), None, None, None, Some(0xff), // mov %esi, exception_index
    Some(0xc7), Some(0x83), None, None, None, None, Some(0), Some(0), Some(0), Some(0), // movl $0, exception_is_int
    Some(0x48), Some(0xc7), Some(0x83), None, None, None, None, Some(0xff), Some(0xff), Some(0xff), Some(0xff), // movq $-1, exception_next_eip
];
const STORE_AT: usize = 11;
/// `nopw 0x0(%rax,%rax,1)`, as long as the store.
const NOTHING: [u8; 6] = [0x66, 0x0f, 0x1f, 0x44, 0x00, 0x00];

/// Takes the store out of QEMU's program. Returns whether it was found, once and no more.
pub(super) fn repair(program: &mut [u8]) -> bool {
    let mut places =
        (0..program.len().saturating_sub(PLACE.len() - 1)).filter(|at| is_place(&program[*at..]));
    let (Some(at), None) = (places.next(), places.next()) else { return false };
    program[at + STORE_AT..][..NOTHING.len()].copy_from_slice(&NOTHING);
    true
}

fn is_place(bytes: &[u8]) -> bool {
    PLACE.iter().zip(bytes).all(|(wanted, byte)| wanted.is_none_or(|wanted| wanted == *byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Some program with the place at an offset.
    fn program(at: usize) -> Vec<u8> {
        let mut bytes = vec![0x90; 200];
        for (byte, wanted) in bytes[at..].iter_mut().zip(PLACE) {
            *byte = wanted.unwrap_or(0x12);
        }
        bytes
    }

    #[test]
    fn the_store_alone_is_replaced() {
        for at in [0, 77, 200 - PLACE.len()] {
            let mut bytes = program(at);
            let before = bytes.clone();
            assert!(repair(&mut bytes));
            let changed: Vec<_> = (0..bytes.len()).filter(|index| bytes[*index] != before[*index]).collect();
            assert!(!changed.is_empty());
            assert!(changed.iter().all(|index| (at + STORE_AT..at + STORE_AT + 6).contains(index)));
            // What has been repaired is no such place any more.
            assert!(!repair(&mut bytes));
        }
    }

    #[test]
    fn another_program_stays_as_it_is() {
        let mut twice = program(10);
        twice.extend(program(10));
        for mut bytes in [vec![], vec![0x41], vec![0x90; 200], twice] {
            let before = bytes.clone();
            assert!(!repair(&mut bytes));
            assert_eq!(bytes, before);
        }
    }
}
