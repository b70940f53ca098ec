use clap::Parser as _;

use super::*;

#[derive(clap::Parser)]
struct Line {
    #[command(flatten)]
    init: Init,
}

fn plan(csv: &str, arguments: &[&str]) -> Result<String, String> {
    let line = Line::try_parse_from(["init", "data.csv"].iter().chain(arguments)).unwrap();
    let columns = Columns::of(csv.as_bytes(), MOST_ROWS).map_err(|report| report.line())?;
    line.init.plan(&columns).map(|plan| plan.told()).map_err(|report| report.line())
}

#[test]
fn columns_are_proposed_by_what_they_hold() {
    let antibodies = "id,heavy,light,hospital,fitness,ph\n1,EVQLVESG,DIQMTQSP,a,1.5,7\n2,QVQLQESG,EIVLTQSP,b,,7\n";
    let proposed = plan(antibodies, &[]).unwrap();
    assert_eq!(
        proposed,
        "predicts the number `fitness` from `heavy`, `light`; a client for each value of `hospital`\n"
    );
    let proposed = plan(antibodies, &["--target", "ph", "--inputs", "heavy", "--clients", "4"]).unwrap();
    assert_eq!(proposed, "predicts the number `ph` from `heavy`; 4 clients, each with a share of the rows\n");
    // Without a usual name the last column of numbers; without sequences the other numbers.
    let table = "index;a;b;c\n0;1.5;2;x\n1;2.5;3;y\n";
    assert_eq!(
        plan(table, &[]).unwrap(),
        "predicts the number `b` from `a`; 3 clients, each with a share of the rows\n"
    );
    let classes = "seq,binder\nEVQLVESG,yes\nQVQLQESG,no\nDIQMTQSP,no\n";
    assert_eq!(
        plan(classes, &[]).unwrap(),
        "predicts the class `binder` from `seq`; 3 clients, each with a share of the rows\n"
    );
}

#[test]
fn what_cannot_be_proposed_is_asked_for() {
    assert!(plan("a,b\nx y,z!\n", &[]).unwrap_err().contains("no column of numbers to predict"));
    assert!(plan("fitness\n1\n2\n", &[]).unwrap_err().contains("no column of sequences to predict from"));
    assert!(plan("a,fitness\n1,2\n", &["--model", "amplify"]).unwrap_err().contains("no column of sequences"));
    let error = plan("heavy,fitness\nEVQLV,2\n", &["--target", "fitnes"]).unwrap_err();
    assert!(error.contains("there is no column `fitnes`") && error.contains("did you mean `fitness`?"), "{error}");
    assert!(plan("a,fitness\n1,2\n", &["--inputs", "fitness"]).unwrap_err().contains("cannot be an input as well"));
    assert!(plan("a,fitness\n", &[]).unwrap_err().contains("no rows"));
    let names: String = (0..=MOST_CLIENTS).map(|row| format!("EVQLV,name {row}\n")).collect();
    let error = plan(&format!("heavy,name\n{names}"), &["--target", "name"]).unwrap_err();
    assert!(error.contains("column `name`: neither numbers nor classes"), "{error}");
    assert!(plan("a,fitness\n1,2\n", &["--clients", "0"]).unwrap_err().contains("at least one client"));
}
