//! scratch
mod guard; mod search; mod store; mod world;
use guard::*; use search::*;
#[test]
fn size() {
  for (k,fa,wi) in [(1,1,0),(2,1,0),(3,1,0),(4,1,0),(5,1,0),(6,1,0),(7,1,0)] {
    unsafe { world::K=k; world::F=fa; world::W=wi; }
    let t = std::time::Instant::now();
    let mut n = 0usize; let mut bad = 0usize; let mut c=0;
    let f = search(Without(&[]), None, |w| { n += 1; if n % 16 == 0 { c+=1; if !w.clone().converges(Without(&[])) { bad += 1; if bad < 2 { println!("{w:#?}"); } } } });
    println!("{k} {fa} {wi}: {} states, {:?} {:?} converge {c} bad {bad}", f.states, f.violation, t.elapsed());
  }
}
