//! Random valid requests against a model of a disk: a vector of bytes.

use std::os::unix::fs::FileExt;

use proptest::prelude::*;
use virtio_bindings::virtio_blk::{
    VIRTIO_BLK_S_OK, VIRTIO_BLK_T_DISCARD, VIRTIO_BLK_T_FLUSH, VIRTIO_BLK_T_IN, VIRTIO_BLK_T_OUT,
    VIRTIO_BLK_T_WRITE_ZEROES,
};

use super::{driver::DATA_LEN, *};

/// Requests of a batch run at the same time, and in no order. So each has a part of the disk of its own.
const BATCH: usize = 8;
const PART: usize = 16 * 512;

/// A request for a part of the disk.
#[derive(Debug, Clone)]
struct Plan {
    kind: u32,
    /// In the part.
    first_sector: usize,
    sectors: usize,
    fill: u8,
    unmap: bool,
    /// Where the data is cut into descriptors.
    cut: usize,
}

fn plan() -> impl Strategy<Value = Plan> {
    let kinds = [
        VIRTIO_BLK_T_IN,
        VIRTIO_BLK_T_OUT,
        VIRTIO_BLK_T_OUT,
        VIRTIO_BLK_T_FLUSH,
        VIRTIO_BLK_T_DISCARD,
        VIRTIO_BLK_T_WRITE_ZEROES,
    ];
    let place = (0_usize..16).prop_flat_map(|first| (Just(first), 1..=16 - first));
    (prop::sample::select(kinds.to_vec()), place, any::<u8>(), any::<bool>(), 0_usize..PART).prop_map(
        |(kind, (first_sector, sectors), fill, unmap, cut)| Plan {
            kind,
            first_sector,
            sectors,
            fill,
            unmap,
            cut,
        },
    )
}

/// The chain of the `index`th request of a batch, whose data is in guest memory then.
fn chain(driver: &Driver, index: usize, plan: &Plan) -> Vec<Chain> {
    let number = index as u64;
    let (header, data, status) = (HEADER + 16 * number, DATA + DATA_LEN * number, STATUS + number);
    let sector = (index * PART / 512 + plan.first_sector) as u64;
    let (len, flags) = match plan.kind {
        VIRTIO_BLK_T_IN => (plan.sectors * 512, WRITE),
        VIRTIO_BLK_T_OUT => {
            driver.put(data, &vec![plan.fill; plan.sectors * 512]);
            (plan.sectors * 512, 0)
        }
        VIRTIO_BLK_T_FLUSH => (0, 0),
        kind => {
            let unmap = u32::from(plan.unmap && kind == VIRTIO_BLK_T_WRITE_ZEROES);
            let mut range = sector.to_le_bytes().to_vec();
            range.extend(u32::try_from(plan.sectors).unwrap().to_le_bytes());
            range.extend(unmap.to_le_bytes());
            driver.put(data, &range);
            (16, 0)
        }
    };
    driver.put_header(number, plan.kind, sector);
    driver.put(status, &[0xee]);
    let cut = plan.cut.min(len);
    let len_of = |len: usize| u32::try_from(len).unwrap();
    let pieces = [(data, len_of(cut), flags), (data + cut as u64, len_of(len - cut), flags)];
    let mut chain = vec![(header, 16, 0)];
    chain.extend(pieces.into_iter().filter(|(_, len, _)| *len > 0));
    chain.push((status, 1, WRITE));
    chain
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn a_disk_is_what_was_written_to_it(
        way in prop::sample::select(ways()),
        durable in any::<bool>(),
        batches in prop::collection::vec(prop::collection::vec(plan(), 1..=BATCH), 1..12),
    ) {
        let mut model = numbered(BATCH * PART);
        let (file, disk) = disk(&model, false);
        let mut bench = Bench::new(way, disk);
        bench.durable = durable;
        for batch in batches {
            let chains: Vec<_> =
                batch.iter().enumerate().map(|(index, plan)| chain(&bench.driver, index, plan)).collect();
            let chains: Vec<_> = chains.iter().map(Vec::as_slice).collect();
            bench.run_all(&chains).unwrap();
            for (index, plan) in batch.iter().enumerate() {
                prop_assert_eq!(bench.driver.status(index as u64), VIRTIO_BLK_S_OK, "{:?}", plan);
                let start = index * PART + plan.first_sector * 512;
                let place = &mut model[start..start + plan.sectors * 512];
                match plan.kind {
                    VIRTIO_BLK_T_IN => {
                        let read = bench.driver.bytes(DATA + DATA_LEN * index as u64, place.len());
                        prop_assert!(read == place, "{:?}", plan);
                    }
                    VIRTIO_BLK_T_OUT => place.fill(plan.fill),
                    VIRTIO_BLK_T_WRITE_ZEROES => place.fill(0),
                    // A driver may expect nothing of what was discarded, but of all the rest.
                    VIRTIO_BLK_T_DISCARD => file.as_file().read_exact_at(place, start as u64).unwrap(),
                    _ => {}
                }
            }
            prop_assert!(std::fs::read(file.path()).unwrap() == model);
        }
    }
}
