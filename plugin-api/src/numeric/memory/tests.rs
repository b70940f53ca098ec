use super::*;

#[test]
fn memory_of_every_size_is_zeroed_aligned_and_its_own() {
    for count in [0, 1, 3, 1000, LARGE / 4, LARGE] {
        let mut buf = TensorBuf::<f32>::zeroed(count);
        assert!(buf.as_slice().iter().all(|&x| x == 0.0));
        buf.as_mut_slice().fill(2.0);
        let copy = TensorBuf::copy_of(buf.as_slice());
        buf.as_mut_slice().fill(3.0);
        let [buf, copy] = [buf, copy].map(TensorBuf::into_buffer);
        assert_eq!(buf.try_cast::<f32>().unwrap(), vec![3.0; count]);
        assert_eq!(copy.try_cast::<f32>().unwrap(), vec![2.0; count]);
        assert_eq!(buf.as_slice().as_ptr().addr() % ALIGNMENT, 0);
    }
}

#[test]
fn a_tensor_is_reclaimed_by_its_last_holder_alone() {
    let mut arena = Arena::of([3, 3].map(Arena::bytes::<f32>));
    let mut buf = arena.alloc::<f32>(3);
    buf.as_mut_slice().copy_from_slice(&[1.0, 2.0, 3.0]);
    let tensor = buf.freeze(&[3]).unwrap();
    let start = tensor.buffer().as_slice().as_ptr();
    let held = tensor.clone();
    let tensor = TensorBuf::<f32>::reclaim(tensor).unwrap_err();
    assert_eq!(tensor.elements::<f32>().unwrap(), held.elements::<f32>().unwrap());
    drop(held);
    let tensor = TensorBuf::<i32>::reclaim(tensor).unwrap_err();
    // Other tensors in the arena do not matter.
    let other = arena.alloc::<f32>(3).freeze(&[3]).unwrap();
    let mut buf = TensorBuf::<f32>::reclaim(tensor).unwrap();
    buf.as_mut_slice()[0] = 7.0;
    let tensor = buf.freeze(&[3]).unwrap();
    assert_eq!((tensor.buffer().as_slice().as_ptr(), other.elements::<f32>().unwrap()), (start, &[0.0; 3][..]));
    assert_eq!(tensor.elements::<f32>().unwrap(), [7.0, 2.0, 3.0]);
    let empty = TensorBuf::<f32>::reclaim(Tensor::from_slice::<f32>(&[0], &[]).unwrap()).unwrap();
    assert!(empty.as_slice().is_empty());
}

#[test]
fn arenas_in_turns_use_the_memory_of_those_before() {
    // A size that no other test uses.
    let (count, size) = (LARGE + 77, Arena::bytes::<u8>(LARGE + 77));
    let mut first = Arena::in_turns([size]);
    let mut buf = first.alloc::<u8>(count);
    buf.as_mut_slice().fill(1);
    drop(first);
    let mut second = Arena::in_turns([size]).alloc::<u8>(count);
    assert!(second.as_slice().iter().all(|&x| x == 0));
    let start = buf.as_slice().as_ptr();
    drop(buf);
    let third = Arena::in_turns([size]).alloc::<u8>(count);
    assert_eq!((third.as_slice().as_ptr(), third.as_slice()[count - 1]), (start, 1));
    second.as_mut_slice().fill(2);
    drop(third);
    // With another size, the waiting memory returns to the system.
    let _other = Arena::in_turns([2 * size]);
    assert!(!block::one_waits());
}

#[test]
fn tensors_in_one_arena_do_not_meet_and_outlive_it() {
    for scale in [1, LARGE / 64] {
        let counts = [1, 17, 0, 16].map(|count| count * scale);
        let mut arena = Arena::of(counts.map(Arena::bytes::<f32>));
        // A tensor beyond the requested sizes gets its own memory.
        let bufs = counts.into_iter().chain([5]).enumerate().map(|(k, count)| {
            let mut buf = arena.alloc::<f32>(count);
            buf.as_mut_slice().fill(k as f32);
            buf
        });
        let bufs: Vec<_> = bufs.collect();
        drop(arena);
        for (k, (buf, count)) in bufs.into_iter().zip(counts.into_iter().chain([5])).enumerate() {
            let tensor = buf.freeze(&[count]).unwrap();
            assert_eq!(tensor.buffer().as_slice().as_ptr().addr() % ALIGNMENT, 0);
            assert_eq!(tensor.elements::<f32>().unwrap(), vec![k as f32; count]);
        }
    }
}
