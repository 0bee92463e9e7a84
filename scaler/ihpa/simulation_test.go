package ihpa

import (
	"flag"
	"fmt"
	"strings"
	"testing"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"

	kapacity "github.com/kubetide/kubetide/api/kapacity/v1alpha1"
	"github.com/kubetide/kubetide/scaler/enginetest"
)

var (
	simulationSeed     = flag.Uint64("simulation.seed", 0, "run the simulation with this seed only, and print its trace")
	simulationSteps    = flag.Int("simulation.steps", 100_000, "at least so many steps are simulated")
	simulationFailures = flag.Int("simulation.failures", 1, "so many seeds may fail before the simulation ends")
)

// stepsOfARun is how long one world is disturbed.
const stepsOfARun = 400

// The engine against every fault: each seed is another world, other events and other faults.
func TestSimulation(t *testing.T) {
	if *simulationSeed != 0 {
		s := simulate(t, *simulationSeed)
		s.live()
		t.Log(strings.Join(s.trace, "\n"))
		s.report()
		return
	}
	steps, failures, seed := 0, 0, uint64(0)
	for steps < *simulationSteps && failures < *simulationFailures {
		seed++
		s := simulate(t, seed)
		s.live()
		steps += s.steps
		if s.broken != "" {
			if failures++; failures == *simulationFailures {
				t.Log(strings.Join(s.trace[max(0, len(s.trace)-120):], "\n"))
			}
			s.report()
		}
	}
	t.Logf("%d steps with %d seeds", steps, seed)
}

// A failing seed is of use only if it fails again.
func TestTheSameSeedGivesTheSameTrace(t *testing.T) {
	for seed := range uint64(5) {
		a, b := simulate(t, seed+1), simulate(t, seed+1)
		a.live()
		b.live()
		if a.digest.Sum64() != b.digest.Sum64() {
			for i := range a.trace {
				if i >= len(b.trace) || a.trace[i] != b.trace[i] {
					t.Fatalf("seed %d: line %d is %q, then %q", seed+1, i, a.trace[i], b.trace[min(i, len(b.trace)-1)])
				}
			}
		}
	}
}

func (s *simulation) report() {
	if s.broken != "" {
		s.t.Errorf("seed %d, step %d: %s\nrun it again: go test ./scaler/ihpa -run 'TestSimulation$' -simulation.seed=%d -v", s.seed, s.steps, s.broken, s.seed)
	}
}

// live disturbs the world, then lets it heal and rest.
func (s *simulation) live() {
	for s.steps < stepsOfARun && s.broken == "" {
		s.step()
	}
	s.heal()
	s.rest()
}

// step does one thing, whoever's turn it is.
func (s *simulation) step() {
	s.steps++
	switch p := s.rng.Float64(); {
	case p < 0.06:
		s.act()
	case p < 0.25:
		s.generate()
		s.w.Play()
	case p < 0.50:
		if kinds := s.cache.Behind(); len(kinds) > 0 && !s.stalled {
			s.notice(s.cache.See(s.pick(kinds...)))
		}
	case p < 0.80:
		if actor := s.rng.IntN(len(s.actors)); s.due(actor) {
			s.run(actor)
		}
	default:
		s.pass(time.Duration(s.rng.ExpFloat64() * float64(3*time.Second)))
	}
}

func (s *simulation) due(actor int) bool { return !s.at[actor].IsZero() && !s.at[actor].After(s.now()) }

func (s *simulation) pass(d time.Duration) {
	s.w.Clock.SetTime(s.now().Add(d.Truncate(time.Millisecond)))
}

// heal ends all faults and what users do for a while.
func (s *simulation) heal() {
	s.say("all faults end")
	s.refused, s.lost, s.away, s.stalled, s.cache.Stalled, s.writesLeft = 0, 0, false, false, false, -1
	s.w.Full, s.w.Pending, s.breach, s.healed = false, false, false, true
	if !s.missing || s.expiry == 0 { // else the generator has gone for good
		s.missing, s.expiry = false, 0
	}
	s.sources.say("errors", 0)
	for _, metric := range measures {
		s.sources.does(metric, "answers")
	}
	if s.w.Client.Get(s.w.Context(), enginetest.Request.NamespacedName, s.target()) != nil {
		s.recreate()
	}
	if s.rollingOut {
		s.rollOut()
	}
	s.schedule()
	s.generate()
	s.w.Edit(func(o *kapacity.IntelligentHorizontalPodAutoscaler) {
		o.Spec.Paused, o.Spec.ScaleMode, o.Spec.Hold = false, kapacity.ScaleModeAuto, nil
	})
}

// settle lets everybody do what there is to do now.
func (s *simulation) settle() {
	for range 2000 {
		before := len(s.cache.Behind())
		s.generate()
		s.w.Play()
		for _, kind := range s.cache.Behind() {
			s.notice(s.cache.See(kind))
		}
		ran := false
		for actor := range s.actors {
			if s.due(actor) {
				s.run(actor)
				ran = true
			}
		}
		s.steps++
		if !ran && before == 0 && len(s.cache.Behind()) == 0 {
			return
		}
		if s.broken != "" {
			return
		}
	}
	s.must(false, "nobody comes to rest")
}

// rest: (e) without faults the workload comes to what the portraits say within bounded time, nothing is held, and nothing is written.
func (s *simulation) rest() {
	const bound = 45 * time.Minute
	situation, since := "", s.now()
	for healed := s.now(); s.broken == ""; {
		s.settle()
		if n := s.situation(); n != situation {
			situation, since = n, s.now()
		}
		if s.rested(s.wanted()) {
			break
		}
		if s.now().Sub(since) > bound || s.now().Sub(healed) > 4*time.Hour {
			s.must(false, "not at %d: %s; desired %v, gray %+v, profile %+v %+v", s.wanted(), s.w.States(), show(s.w.IHPA().Status.DesiredReplicas),
				show(s.w.IHPA().Status.Gray), s.w.Profile().Spec, s.w.Profile().Status)
			return
		}
		s.next(time.Minute)
	}
	// Whatever was under way ends: conditions, histories.
	s.foreign = false
	wanted, writes := s.wanted(), 0
	calm, end := s.now().Add(10*time.Minute), s.now().Add(30*time.Minute)
	for s.broken == "" && s.now().Before(end) {
		if s.next(time.Minute); s.situation() != situation {
			s.must(s.due(theIHPA), "a window opened or closed, and nobody looks")
			return
		}
		s.settle()
		if s.now().Before(calm) {
			writes = len(s.w.Writes)
		}
		s.must(s.rested(wanted), "leaves %d: %s", wanted, s.w.States())
		s.must(len(s.w.Writes) == writes, "written at rest: %v", s.w.Writes[writes:])
	}
	switch _, dynamic := s.said(); {
	case s.broken != "" || !dynamic:
	case s.reactive:
		s.follow()
	default:
		s.lapse()
	}
}

// next moves on to when somebody looks, at most by d.
func (s *simulation) next(d time.Duration) {
	next := s.now().Add(d)
	for _, at := range s.at {
		if !at.IsZero() && at.After(s.now()) && at.Before(next) {
			next = at
		}
	}
	s.w.Clock.SetTime(next)
}

// rested tells whether all is as it is wanted. The profile has to say so as well: what others did may look the same by chance.
func (s *simulation) rested(wanted int32) bool {
	o := s.target()
	if s.reactive && !s.portrayed() {
		return false
	}
	if s.stored != nil && s.stored.Spec.OnlineReplicas != wanted {
		return false
	}
	if err := s.w.Client.Get(s.w.Context(), enginetest.Request.NamespacedName, o); client.IgnoreNotFound(err) != nil || *replicasOf(o) != wanted {
		return false
	}
	return numbers(s.w) == fmt.Sprintf("%d/0", wanted) && s.w.Endpoints() == int(wanted)
}
