package classify

import "testing"

var benchTexts = []struct{ name, sql string }{
	{"begin", "BEGIN"},
	{"parameter", "SELECT id, a, b FROM t WHERE id = $1"},
	{"literal", "SELECT id, a, b FROM t WHERE id = 42"},
	{"insert", "INSERT INTO t (id, a, b) VALUES (1, 2, 'three') ON CONFLICT (id) DO UPDATE SET a = excluded.a"},
	{"join", "SELECT o.id, sum(l.price * l.n) FROM app.orders o JOIN app.lines l ON l.order_id = o.id " +
		"WHERE o.placed >= '2020-01-01' AND o.state IN ('a', 'b') GROUP BY o.id HAVING count(*) > 1 ORDER BY 2 DESC LIMIT 10"},
}

func BenchmarkParse(b *testing.B) {
	for _, bb := range benchTexts {
		b.Run(bb.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				Parse(bb.sql)
			}
		})
	}
}

func BenchmarkHit(b *testing.B) {
	for _, bb := range benchTexts {
		b.Run(bb.name, func(b *testing.B) {
			c := NewCache(0)
			c.Classify(bb.sql)
			b.ReportAllocs()
			for b.Loop() {
				c.Classify(bb.sql)
			}
		})
	}
}

func BenchmarkHitParallel(b *testing.B) {
	c := NewCache(0)
	sql := benchTexts[1].sql
	c.Classify(sql)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			c.Classify(sql)
		}
	})
}

func BenchmarkResolve(b *testing.B) {
	v := Parse("SELECT app.pure(1), lower('x')")
	for b.Loop() {
		v.Resolve(harmlessFunctions{})
	}
}
