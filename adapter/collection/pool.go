package collection

// pool limits how many collections run at once, in all and for each namespace, and takes turns between namespaces.
type pool struct {
	limit, perNamespace int
	running             int
	lanes               map[string]*lane
	ready               []*lane // those that wait and have room, in turn
}

type lane struct {
	namespace string
	running   int
	waiting   []*job
	queued    bool // in pool.ready
}

func newPool(limit, perNamespace int) *pool {
	return &pool{limit: limit, perNamespace: perNamespace, lanes: map[string]*lane{}}
}

func (p *pool) lane(namespace string) *lane {
	l := p.lanes[namespace]
	if l == nil {
		l = &lane{namespace: namespace}
		p.lanes[namespace] = l
	}
	return l
}

// adopt counts in a job that runs already, if there is room.
func (p *pool) adopt(j *job) bool {
	if p.running >= p.limit {
		return false
	}
	l := p.lane(j.query.Namespace)
	if l.running >= p.perNamespace {
		return false
	}
	l.running++
	p.running++
	return true
}

func (p *pool) enqueue(j *job) {
	l := p.lane(j.query.Namespace)
	l.waiting = append(l.waiting, j)
	p.offer(l)
}

func (p *pool) offer(l *lane) {
	if !l.queued && len(l.waiting) > 0 && l.running < p.perNamespace {
		l.queued = true
		p.ready = append(p.ready, l)
	}
}

// next returns the next job to run; nil if there is none or no room.
func (p *pool) next() *job {
	for p.running < p.limit && len(p.ready) > 0 {
		l := p.ready[0]
		p.ready = p.ready[1:]
		l.queued = false
		for len(l.waiting) > 0 {
			j := l.waiting[0]
			l.waiting = l.waiting[1:]
			if j.removed {
				j.busy = false
				continue
			}
			l.running++
			p.running++
			p.offer(l)
			return j
		}
		p.close(l)
	}
	return nil
}

func (p *pool) done(j *job) {
	l := p.lanes[j.query.Namespace]
	l.running--
	p.running--
	p.offer(l)
	p.close(l)
}

// close forgets a lane that nobody uses.
func (p *pool) close(l *lane) {
	if l.running == 0 && len(l.waiting) == 0 {
		delete(p.lanes, l.namespace)
	}
}
