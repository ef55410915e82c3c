package simulation

// mood is what a world is like: each has faults of some kinds only, and more or less of all, so
// that what takes many of one kind, and none of another, comes up as well (Groce et al.,
// "Swarm Testing", 2012).
type mood struct {
	mute   uint32 // bit k: no faults of kind k
	often  int    // of 64 steps, how many are faults
	loss   int    // one message in so many is lost; 0 none
	speed  int    // how fast time goes
	eager  int    // of 64 steps, how many are clients'
	orders int    // one call in so many overtakes others
	leap   int    // how far time goes at most when nobody has anything to do; 0 is a quarter of a lease
	deaf   int    // of 100 views that a member is to accept, how many are lost on their way
}

// scene is a mood that some accidents need, or a course of events that leads to one.
type scene struct {
	name  string
	kinds []int // of faults
	mood
	// script says what happens, in a set of three members and so many distributors; nil if that is left
	// to chance. The world goes on for a while after it, and has so many steps at most.
	script       func(*world) []stage
	dists, steps int
}

// scenes are those that half of all worlds have; those with a script come last.
var scenes = []scene{
	{name: "readers that sleep", kinds: []int{9, 9, 10, 17, 18, 19, 23}, mood: mood{often: 4, speed: 8, eager: 14, orders: 8}},
	{name: "members that come and go", kinds: []int{0, 1, 2, 3, 4, 5, 6, 17, 20}, mood: mood{often: 4, speed: 2, eager: 8, orders: 4}},
	{name: "servers that are replaced", kinds: []int{21, 24, 25, 17, 18, 13, 15, 16, 11}, mood: mood{often: 4, speed: 3, eager: 8, orders: 4}},
	{name: "crashes that nobody sees", kinds: []int{6, 17}, mood: mood{often: 2, speed: 2, eager: 14, orders: 8}},
	{name: "voters that change", kinds: []int{22, 22, 13, 14, 15, 17, 20, 11, 9, 10}, mood: mood{often: 4, speed: 3, eager: 6, orders: 4}},
	{name: "distributors that see different things", kinds: []int{13, 14, 15, 9, 10, 17, 18, 20}, mood: mood{often: 5, loss: 20, speed: 3, eager: 6, orders: 2}},
	{name: "leaders that are dropped", kinds: []int{17, 18, 19, 20}, mood: mood{often: 4, speed: 2, eager: 10, orders: 2}},
	{name: "views that few accept", kinds: []int{22, 22, 17, 13, 15}, mood: mood{often: 5, speed: 3, eager: 8, orders: 4, deaf: 45}},
	{name: "readers that are left behind", mood: quiet, script: leftBehind, dists: 2, steps: 900},
	{name: "a reader that was alone", mood: quiet, script: wasAlone, dists: 1, steps: 900},
	{name: "a reader that is struck off late", mood: quiet, script: struckOffLate, dists: 2, steps: 900},
	{name: "a reader whose short lease comes late", mood: quiet, script: shortLeaseLate, dists: 2, steps: 900},
	{name: "a proposer who keeps a leader of the past", mood: quiet, script: leaderOfThePast, dists: 1, steps: 900},
	{name: "an old server that votes", mood: quiet, script: oldServer, dists: 2, steps: 900},
	{name: "a copy made by an old view", mood: quiet, script: copyByOldView, dists: 2, steps: 900},
	{name: "a change of votes that half of them know", mood: quiet, script: votersByHalves, dists: 2, steps: 900},
	{name: "a leader that takes office again", mood: quiet, script: officeAgain, dists: 2, steps: 900},
	{name: "a member that joins under the next leader", mood: quiet, script: joinOfOtherTerm, dists: 1, steps: 600},
	{name: "a promise for nothing", mood: quiet, script: promiseForNothing, dists: 2, steps: 500},
}

// quiet is a world in which little goes wrong but by a script.
var quiet = mood{often: 0, speed: 2, eager: 10, orders: 8, leap: 6}

// scripted is how many of them, the last ones, have a script.
const scripted = 11

// chosen is the scene of this world; nil if it has none. Those with a script take long, and are rare.
func (w *world) chosen() *scene {
	plain := len(scenes) - scripted
	switch {
	case w.Scene > 0:
		return &scenes[w.Scene-1]
	case !w.rng.oneIn(2):
		return nil
	case w.rng.oneIn(8):
		return &scenes[plain+w.rng.n(scripted)]
	}
	return &scenes[w.rng.n(plain)]
}

// feel gives the world its scene, or a mood of its own.
func (w *world) feel() {
	r := &w.rng
	if s := w.chosen(); s != nil {
		w.scene = s
		w.mood = s.mood
		w.mute = 1<<kinds - 1
		for _, k := range s.kinds {
			w.mute &^= 1 << k
		}
		w.note("a world of %s", s.name)
		return
	}
	w.mood = mood{mute: uint32(r.next()), often: []int{1, 2, 3, 6}[r.n(4)], loss: []int{0, 20, 50, 100}[r.n(4)], speed: []int{2, 3, 5, 12}[r.n(4)],
		eager: []int{3, 5, 10}[r.n(3)], orders: []int{2, 4, 16}[r.n(3)]}
	if r.oneIn(4) {
		w.mute = 0
	}
}
