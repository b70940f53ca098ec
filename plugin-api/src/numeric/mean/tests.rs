use super::*;

/// The definition, step by step.
fn plainly<M: Float, X: Float>(sent: &[(Vec<X>, f64)]) -> Vec<M> {
    let mut weight = sent[0].1;
    let mut mean: Vec<M> = sent[0].0.iter().map(|x| M::narrow(x.wide())).collect();
    for (x, own) in &sent[1..] {
        weight += own;
        mean = mean.iter().zip(x).map(|(m, x)| M::narrow(m.wide() + own / weight * (x.wide() - m.wide()))).collect();
    }
    mean
}

fn agrees<M: Float, X: Float>(len: usize, narrow: impl Fn(Vec<M>) -> Vec<X>) {
    let value = |client: usize, i: usize| X::narrow(((i * 7919 + client * 104_729) % 2003) as f64 / 1000.0 - 1.0);
    let sent = |client| ((0..len).map(|i| value(client, i)).collect::<Vec<X>>(), 1.0 + client as f64 / 3.0);
    let sent: Vec<_> = (0..6).map(sent).collect();
    for clients in 1..=sent.len() {
        let mut mean = WeightedMean::new().with_threads(clients);
        for (x, weight) in &sent[..clients] {
            let params: Params = [("x", Tensor::from_slice(&[len], x).unwrap())].into_iter().collect();
            mean.add(&params, *weight, "client").unwrap();
        }
        let mean = mean.finish().unwrap();
        let expected = narrow(plainly::<M, X>(&sent[..clients]));
        let expected = Tensor::from_slice(&[len], &expected).unwrap();
        let same = mean.get("x").unwrap().buffer().as_slice() == expected.buffer().as_slice();
        assert!(same, "{clients} clients, {}[{len}]", X::DTYPE);
    }
}

#[test]
fn the_mean_has_the_bits_of_its_definition_however_it_is_computed() {
    agrees::<f32, f32>(37, |mean| mean);
    agrees::<f64, f64>(37, |mean| mean);
    agrees::<f32, f16>(37, |mean| mean.into_iter().map(|x| f16::narrow(x.wide())).collect());
    agrees::<f32, bf16>(37, |mean| mean.into_iter().map(|x| bf16::narrow(x.wide())).collect());
    // Large enough for several threads and for memory from the system.
    agrees::<f32, f32>(if cfg!(miri) { 3 << 10 } else { (9 << 20) / 4 }, |mean| mean);
}

/// Memory that starts `offset` elements after a multiple of 64 bytes, as the tensors of a mapped file do.
fn begins_at<X: Float>(offset: usize, elements: &[X]) -> Tensor {
    let mut padded = vec![X::default(); offset];
    padded.extend_from_slice(elements);
    let memory = TensorBuf::copy_of(&padded).into_buffer();
    let (data, bytes) = (memory.as_slice()[offset * size_of::<X>()..].as_ptr(), size_of_val(elements));
    // SAFETY: the bytes belong to the buffer, which the tensor keeps alive.
    let buffer = unsafe { crate::Buffer::from_owner(data, bytes, memory) };
    Tensor::new(X::DTYPE, &[elements.len()], buffer).unwrap()
}

#[test]
fn tensors_may_begin_anywhere() {
    fn at<X: Float>() {
        let value = |client: usize, i: usize| X::narrow(((i * 7919 + client * 104_729) % 2003) as f64 / 1000.0 - 1.0);
        let mean_of = |offset: usize| {
            let mut mean = WeightedMean::new();
            for client in 0..4 {
                // Each client has its own offset, for passes that read two tensors.
                let elements: Vec<X> = (0..67).map(|i| value(client, i)).collect();
                let tensor = begins_at(offset + client * usize::from(offset > 0), &elements);
                assert!(tensor.is_finite());
                mean.add(&[("x", tensor)].into_iter().collect(), 1.0 + client as f64, "client").unwrap();
            }
            mean.finish().unwrap().get("x").unwrap().buffer().as_slice().to_vec()
        };
        let aligned = mean_of(0);
        (1..64 / size_of::<X>()).for_each(|offset| assert!(mean_of(offset) == aligned, "{} {offset}", X::DTYPE));
    }
    at::<f32>();
    at::<f64>();
    at::<f16>();
    at::<bf16>();
    // The memory may not start inside an element.
    let memory = TensorBuf::copy_of(&[0_u8; 9]).into_buffer();
    // SAFETY: the bytes belong to the buffer, which the owner keeps alive.
    let odd = unsafe { crate::Buffer::from_owner(memory.as_slice()[1..].as_ptr(), 8, memory.clone()) };
    let error = Tensor::new(DType::F32, &[2], odd.clone()).unwrap_err();
    assert!(error.message().ends_with("but its f32 elements need a multiple of 4"), "{error}");
    assert!(Tensor::new(DType::U8, &[8], odd).is_ok());
}

/// A client's tensor of this many elements, with a flag that says whether it still exists. It has both zeros.
fn watched(count: usize, client: usize) -> (Params, std::sync::Weak<()>) {
    let value = |i: usize| if i.is_multiple_of(2) { -0.0 } else { (i % 97 * (client + 1)) as f32 };
    let memory = TensorBuf::copy_of(&(0..count).map(value).collect::<Vec<f32>>()).into_buffer();
    let alive = std::sync::Arc::new(());
    let watch = std::sync::Arc::downgrade(&alive);
    let (data, bytes) = (memory.as_slice().as_ptr(), memory.len());
    // SAFETY: the bytes belong to the buffer, which the owner keeps alive.
    let buffer = unsafe { crate::Buffer::from_owner(data, bytes, (memory, alive)) };
    ([("x", Tensor::new(DType::F32, &[count], buffer).unwrap())].into_iter().collect(), watch)
}

#[test]
fn no_clients_tensors_are_held() {
    let (mut mean, mut first) = (WeightedMean::new(), Vec::new());
    for client in 0..3 {
        let (params, watch) = watched(1000, client);
        if client == 0 {
            first = params.get("x").unwrap().buffer().as_slice().to_vec();
        }
        mean.add(&params, 1.0, "client").unwrap();
        drop(params);
        assert!(watch.upgrade().is_none(), "client {client}");
    }
    assert_eq!(mean.finish().unwrap().elements::<f32>("x", &[1000]).unwrap()[3], 6.0);
    // A single client's come back bit for bit, with both zeros.
    let mut mean = WeightedMean::new();
    mean.add(&watched(1000, 0).0, 3.0, "client").unwrap();
    assert!(mean.finish().unwrap().get("x").unwrap().buffer().as_slice() == first);
}
