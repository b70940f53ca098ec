use super::*;

#[test]
fn errors_arrive_as_they_were_sent() {
    let io = std::io::Error::other("disk on fire");
    for sent in [
        Error::config("no").at_key("a.b").help("yes"),
        Error::data("bad row").in_file("x/y.csv", Some(7)).because(&io),
        Error::tensor("w", "is wrong"),
        Error::new(ErrorKind::Other("odd".into()), "plain"),
    ] {
        assert_eq!(Error::from(WireError::from(sent.clone())), sent);
    }
}

#[test]
fn lies_about_tensors_are_refused_by_name() {
    let honest = || export_params(&[("w", Tensor::from_slice(&[2, 3], &[0.0_f32; 6]).unwrap())].into_iter().collect());
    let mut twice = honest();
    twice.extend(honest());
    let mut long = honest();
    long[0].shape = vec![u64::MAX, u64::MAX].into();
    let mut odd = honest();
    odd[0].code = 99;
    for (wire, text) in [(twice, "twice"), (long, "does not take 24 bytes"), (odd, "DLPack type 99")] {
        let error = import_params(wire).unwrap_err();
        assert!(error.to_string().starts_with("tensor `w`: ") && error.message().contains(text), "{error}");
    }
    assert_eq!(import_params(honest()).unwrap().get("w").unwrap().shape(), [2, 3]);
}

#[test]
fn lies_about_columns_are_refused_by_name() {
    let table = Table::new().with("text", Column::text(["ä", "b"])).unwrap();
    let honest = import_table(export_table(&table)).unwrap();
    assert_eq!(honest.text("text").unwrap().iter().collect::<Vec<_>>(), ["ä", "b"]);
    for ends in [vec![1_i64, 3], vec![3, 2], vec![2, 9], vec![-1, 3]] {
        let mut wire = export_table(&table);
        wire[0].ends = ROption::RSome(Buffer::copy_of(&ends).export());
        let error = import_table(wire).unwrap_err();
        assert!(error.message().starts_with("column `text`: a column of text has a row that ends before"), "{error}");
    }
    let mut wire = export_table(&table);
    wire[0].data = ROption::RSome(Buffer::copy_of(&[255_u8; 3]).export());
    let error = import_table(wire).unwrap_err();
    assert_eq!((error.message(), error.causes().len()), ("column `text`: a column of text is not UTF-8", 1));
    let mut wire = export_table(&table);
    wire[0].kind = 7;
    assert_eq!(import_table(wire).unwrap_err().message(), "column `text`: it is of kind 7, unknown here");
    let mut wire = export_table(&Table::new().with("x", Column::f32(&[1.0])).unwrap());
    wire[0].present = ROption::RSome(Buffer::copy_of(&[1_u8, 1]).export());
    assert!(import_table(wire).unwrap_err().message().contains("for 2 of 1 rows"));
}

#[test]
fn columns_of_every_type_arrive_as_they_were_sent_and_share_their_memory() {
    let (mut table, columns) = (Table::new(), crate::data::tests::all());
    for (name, column) in &columns {
        table = table.with(*name, column.clone()).unwrap();
    }
    let there = import_table(export_table(&table)).unwrap();
    for (name, column) in &columns {
        let found = there.column(name).unwrap();
        // The debug output includes addresses.
        assert_eq!(format!("{found:?}"), format!("{column:?}"));
    }
    let mut lists = Column::i64(&[1]);
    for _ in 0..=DEEPEST {
        lists = Column::List(ListColumn::new([1], lists).unwrap());
    }
    let error = import_table(export_table(&Table::new().with("x", lists).unwrap())).unwrap_err();
    assert_eq!(error.message(), "column `x`: lists are nested too deep");
}
