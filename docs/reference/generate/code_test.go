package main

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/constant"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"testing"
)

const module = "github.com/kubetide/kubetide/"

// sources are the module's packages that the binaries are made of, with their types, each after those that it imports.
type sources struct {
	files    *token.FileSet
	packages []*checked
	own      map[string]*types.Package
	others   types.Importer
}

type checked struct {
	path   string // below the module
	syntax []*ast.File
	types  *types.Package
	info   *types.Info
}

// Import implements types.Importer. A package of the module is the one that was read from source, so that its fields and functions are
// the same objects wherever they are named.
func (s *sources) Import(path string) (*types.Package, error) {
	if own, ok := s.own[path]; ok {
		return own, nil
	}
	return s.others.Import(path)
}

func theSources(t *testing.T) *sources {
	t.Helper()
	s, err := read()
	if err != nil {
		t.Fatal(err)
	}
	return s
}

var read = sync.OnceValues(func() (*sources, error) {
	args := []string{"list", "-deps", "-export", "-f", "{{.ImportPath}}\t{{.Export}}\t{{.Dir}}\t{{join .GoFiles \" \"}}"}
	if info, ok := debug.ReadBuildInfo(); ok && slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"}) {
		args = append(args, "-race") // what it needs is then compiled already
	}
	var stderr bytes.Buffer
	list := exec.Command("go", append(args, "./cmd/...")...)
	list.Dir, list.Stderr = root, &stderr
	out, err := list.Output()
	if err != nil {
		return nil, fmt.Errorf("go list: %w: %s", err, &stderr)
	}
	s := &sources{files: token.NewFileSet(), own: map[string]*types.Package{}}
	exports := map[string]string{}
	s.others = importer.ForCompiler(s.files, "gc", func(path string) (io.ReadCloser, error) { return os.Open(exports[path]) })
	for line := range strings.Lines(string(out)) {
		cells := strings.Split(strings.TrimSuffix(line, "\n"), "\t")
		path, dir := cells[0], cells[2]
		exports[path] = cells[1]
		below, ours := strings.CutPrefix(path, module)
		if !ours {
			continue
		}
		c := &checked{path: below, info: &types.Info{
			Types: map[ast.Expr]types.TypeAndValue{}, Defs: map[*ast.Ident]types.Object{}, Uses: map[*ast.Ident]types.Object{}, Selections: map[*ast.SelectorExpr]*types.Selection{},
		}}
		for _, name := range strings.Fields(cells[3]) {
			file, err := parser.ParseFile(s.files, filepath.Join(dir, name), nil, parser.SkipObjectResolution)
			if err != nil {
				return nil, err
			}
			c.syntax = append(c.syntax, file)
		}
		if c.types, err = (&types.Config{Importer: s}).Check(path, s.files, c.syntax, c.info); err != nil {
			return nil, err
		}
		s.own[path] = c.types
		s.packages = append(s.packages, c)
	}
	return s, nil
})

// text is the value of a constant expression that is a string.
func (c *checked) text(e ast.Expr) (string, bool) {
	if v := c.info.Types[e].Value; v != nil && v.Kind() == constant.String {
		return constant.StringVal(v), true
	}
	return "", false
}

// callee is what is called: a function, a method, or a variable that holds a function.
func (c *checked) callee(call *ast.CallExpr) types.Object {
	fun := ast.Unparen(call.Fun)
	switch f := fun.(type) {
	case *ast.IndexExpr:
		fun = f.X
	case *ast.IndexListExpr:
		fun = f.X
	}
	switch f := fun.(type) {
	case *ast.Ident:
		return origin(c.info.Uses[f])
	case *ast.SelectorExpr:
		return origin(c.info.Uses[f.Sel])
	}
	return nil
}

// origin is the object as it was declared, where it is one of an instance of a generic type.
func origin(o types.Object) types.Object {
	switch o := o.(type) {
	case *types.Func:
		return o.Origin()
	case *types.Var:
		return o.Origin()
	}
	return o
}

// flow says which texts may come to be where. A place is a variable, a parameter or a field (a *types.Var, whatever value it is of), or one
// of the types below. The order of statements does not matter.
type flow struct {
	*sources
	into map[any][]text
	// conditionFields are those of a condition, by their objects.
	conditionFields map[*types.Var]string
	// calls are the methods of interfaces that are called.
	calls map[*types.Func]bool
	sinks []sink
	// rows are the constants that stand in one call or literal, in their order.
	rows []row
}

// result is what a function returns: a *types.Func, an *ast.FuncLit, or what a *types.Var holds.
type result struct {
	of    any
	index int
}

// argument is what is handed to the function that a variable holds.
type argument struct {
	of    *types.Var
	index int
}

// conditionField is a field of the conditions that a package writes.
type conditionField struct{ path, field string }

// text is one origin of a text: a constant, what stands somewhere else, two in a row, or something that cannot be followed.
type text struct {
	constant    string
	from        any
	left, right []text
	open        string
}

// sink is a call of an event recorder.
type sink struct {
	path         string
	at           token.Position
	kind, reason []text
}

type row struct {
	path   string
	at     token.Position
	values []string
	// keyed has the values by the fields that they are for, if they were written so.
	keyed map[string]string
}

func theFlow(t *testing.T) *flow {
	t.Helper()
	f, err := follow()
	if err != nil {
		t.Fatal(err)
	}
	return f
}

var follow = sync.OnceValues(func() (*flow, error) {
	s, err := read()
	if err != nil {
		return nil, err
	}
	f := &flow{sources: s, into: map[any][]text{}, conditionFields: map[*types.Var]string{}, calls: map[*types.Func]bool{}}
	meta, err := s.Import("k8s.io/apimachinery/pkg/apis/meta/v1")
	if err != nil {
		return nil, err
	}
	fields := meta.Scope().Lookup("Condition").Type().Underlying().(*types.Struct)
	for v := range fields.Fields() {
		if v.Name() == "Type" || v.Name() == "Reason" {
			f.conditionFields[v] = v.Name()
		}
	}
	for _, c := range s.packages {
		for _, file := range c.syntax {
			ast.Walk(walker{flow: f, checked: c}, file)
		}
	}
	f.implementations()
	return f, nil
})

// implementations let what is handed to an interface's method come to each method that may be meant, and what these return come back.
func (f *flow) implementations() {
	for method := range f.calls {
		of := method.Signature().Recv().Type().Underlying().(*types.Interface)
		for _, c := range f.packages {
			for _, name := range c.types.Scope().Names() {
				named, ok := c.types.Scope().Lookup(name).(*types.TypeName)
				if !ok || types.IsInterface(named.Type()) {
					continue
				}
				pointer := types.NewPointer(named.Type())
				if !types.Implements(pointer, of) {
					continue
				}
				found, _, _ := types.LookupFieldOrMethod(pointer, true, c.types, method.Name())
				meant, ok := found.(*types.Func)
				if !ok {
					continue
				}
				for i := range method.Signature().Results().Len() {
					f.add(result{method, i}, text{from: result{meant.Origin(), i}})
				}
				for i := range method.Signature().Params().Len() {
					f.add(meant.Origin().Signature().Params().At(i), text{from: method.Signature().Params().At(i)})
				}
			}
		}
	}
}

func (f *flow) add(place any, texts ...text) {
	if place != nil {
		f.into[place] = append(f.into[place], texts...)
	}
}

// reached is what may come to be somewhere.
type reached struct {
	// constants are the texts; one with a star has a part that cannot be followed.
	constants map[string]bool
	// open are the origins that cannot be followed.
	open map[string]bool
}

// resolve follows the texts back. Those that come through conditions are left out, unless they are asked for.
func (f *flow) resolve(texts []text, conditions bool) reached {
	out := reached{map[string]bool{}, map[string]bool{}}
	f.follow(texts, conditions, map[any]bool{}, out)
	return out
}

func (f *flow) follow(texts []text, conditions bool, seen map[any]bool, out reached) {
	for _, t := range texts {
		switch {
		case t.left != nil || t.right != nil:
			for _, l := range f.parts(t.left, conditions, seen) {
				for _, r := range f.parts(t.right, conditions, seen) {
					out.constants[strings.ReplaceAll(l+r, "**", "*")] = true
				}
			}
		case t.open != "":
			out.open[t.open] = true
		case t.constant != "":
			out.constants[t.constant] = true
		case t.from == nil: // the empty text
		case !seen[t.from]:
			seen[t.from] = true
			if _, through := t.from.(conditionField); through && !conditions {
				continue
			}
			if v, ok := t.from.(*types.Var); ok && len(f.into[v]) == 0 {
				out.open[fmt.Sprintf("%s %s", strings.TrimPrefix(v.Pkg().Path(), module), v.Name())] = true
			}
			f.follow(f.into[t.from], conditions, seen, out)
		}
	}
}

func (f *flow) parts(texts []text, conditions bool, seen map[any]bool) []string {
	all := reached{map[string]bool{}, map[string]bool{}}
	f.follow(texts, conditions, maps.Clone(seen), all)
	out := slices.Sorted(maps.Keys(all.constants))
	if len(all.open) > 0 {
		out = append(out, "*")
	}
	return out
}

// walker looks at the syntax of one function, or of a file outside of any.
type walker struct {
	*flow
	*checked
	function any
	returns  *types.Tuple
}

func isText(t types.Type) bool {
	b, ok := t.Underlying().(*types.Basic)
	return ok && b.Info()&types.IsString != 0
}

// Visit implements ast.Visitor.
func (w walker) Visit(n ast.Node) ast.Visitor {
	switch n := n.(type) {
	case *ast.FuncDecl:
		function := w.info.Defs[n.Name].(*types.Func)
		return w.inside(function, function.Signature())
	case *ast.FuncLit:
		return w.inside(n, w.info.TypeOf(n).(*types.Signature))
	case *ast.ReturnStmt:
		w.returned(n)
	case *ast.AssignStmt:
		w.assigned(n.Lhs, n.Rhs)
	case *ast.ValueSpec:
		var names []ast.Expr
		for _, name := range n.Names {
			names = append(names, name)
		}
		w.assigned(names, n.Values)
	case *ast.RangeStmt:
		w.ranged(n)
	case *ast.CompositeLit:
		w.literal(n)
	case *ast.CallExpr:
		w.called(n)
	}
	return w
}

func (w walker) inside(function any, s *types.Signature) walker {
	w.function, w.returns = function, s.Results()
	for i := range s.Results().Len() {
		if v := s.Results().At(i); v.Name() != "" && isText(v.Type()) {
			w.add(result{function, i}, text{from: v})
			w.add(v, text{}) // until something is assigned
		}
	}
	return w
}

func (w walker) returned(n *ast.ReturnStmt) {
	if len(n.Results) == 1 && w.returns.Len() > 1 {
		for i := range w.returns.Len() {
			w.add(result{w.function, i}, w.answer(n.Results[0], i)...)
		}
		return
	}
	for i, e := range n.Results {
		if isText(w.returns.At(i).Type()) {
			w.add(result{w.function, i}, w.texts(e)...)
		}
	}
}

func (w walker) assigned(left, right []ast.Expr) {
	for i, l := range left {
		place := w.place(l)
		switch {
		case place == nil:
		case len(left) == len(right):
			w.put(place, right[i])
		case len(right) == 1:
			w.add(place, w.answer(right[0], i)...)
		}
	}
}

// put lets a value come to a place: a text, or a function.
func (w walker) put(place any, value ast.Expr) {
	if literal, ok := ast.Unparen(value).(*ast.FuncLit); ok {
		holder, ok := place.(*types.Var)
		if !ok {
			return
		}
		s := w.info.TypeOf(literal).(*types.Signature)
		for i := range s.Params().Len() {
			w.add(s.Params().At(i), text{from: argument{holder, i}})
		}
		for i := range s.Results().Len() {
			w.add(result{holder, i}, text{from: result{literal, i}})
		}
		return
	}
	if t := w.info.TypeOf(value); t != nil && isText(t) {
		w.add(place, w.texts(value)...)
	}
}

// answer is the index-th of the values that an expression gives.
func (w walker) answer(e ast.Expr, index int) []text {
	if call, ok := ast.Unparen(e).(*ast.CallExpr); ok {
		if function := w.callee(call); function != nil && w.ours(function) {
			return []text{{from: result{w.noted(function), index}}}
		}
	}
	return []text{{open: w.named(e)}}
}

// noted remembers the methods of interfaces.
func (w walker) noted(o types.Object) types.Object {
	if f, ok := o.(*types.Func); ok && f.Signature().Recv() != nil && types.IsInterface(f.Signature().Recv().Type()) {
		w.calls[f] = true
	}
	return o
}

func (w walker) ours(o types.Object) bool {
	return o.Pkg() != nil && strings.HasPrefix(o.Pkg().Path(), module)
}

// place is where an assignment to the expression goes to; nil if it is no variable and no field of the module's.
func (w walker) place(e ast.Expr) any {
	var o types.Object
	switch e := ast.Unparen(e).(type) {
	case *ast.Ident:
		o = w.info.ObjectOf(e)
	case *ast.SelectorExpr:
		o = w.info.Uses[e.Sel]
	}
	if v, ok := origin(o).(*types.Var); ok {
		return w.variable(v)
	}
	return nil
}

func (w walker) variable(v *types.Var) any {
	if field, ok := w.conditionFields[v]; ok {
		return conditionField{w.path, field}
	}
	if w.ours(v) {
		return v
	}
	return nil
}

func (w walker) ranged(n *ast.RangeStmt) {
	literal, ok := ast.Unparen(n.X).(*ast.CompositeLit)
	for i, to := range []ast.Expr{n.Key, n.Value} {
		if to == nil {
			continue
		}
		place := w.place(to)
		if place == nil || !isText(w.info.TypeOf(to)) {
			continue
		}
		if !ok {
			w.add(place, text{open: w.named(n.X)})
			continue
		}
		for _, e := range literal.Elts {
			if pair, keyed := e.(*ast.KeyValueExpr); keyed {
				e = []ast.Expr{pair.Key, pair.Value}[i]
			}
			w.add(place, w.texts(e)...)
		}
	}
}

func (w walker) literal(n *ast.CompositeLit) {
	t := w.info.TypeOf(n)
	if p, ok := t.Underlying().(*types.Pointer); ok {
		t = p.Elem()
	}
	r := row{path: w.path, at: w.files.Position(n.Pos()), keyed: map[string]string{}}
	structure, isStruct := t.Underlying().(*types.Struct)
	entries := map[string]ast.Expr{}
	for i, e := range n.Elts {
		var field *types.Var
		if pair, keyed := e.(*ast.KeyValueExpr); keyed {
			e = pair.Value
			if isStruct {
				field = origin(w.info.Uses[pair.Key.(*ast.Ident)]).(*types.Var)
				if value, ok := w.text(e); ok {
					r.keyed[field.Name()] = value
				}
			} else if name, ok := w.text(pair.Key); ok {
				entries[name] = e
			}
		} else if isStruct {
			field = structure.Field(i).Origin()
			if value, ok := w.text(e); ok {
				r.values = append(r.values, value)
			}
		}
		if field != nil {
			if place := w.variable(field); place != nil {
				w.put(place, e)
			}
		}
	}
	w.rows = append(w.rows, r)
	// A condition of a pod is written as a patch.
	if kind, reason := entries["type"], entries["reason"]; kind != nil && reason != nil {
		w.add(conditionField{w.path, "Type"}, w.texts(kind)...)
		w.add(conditionField{w.path, "Reason"}, w.texts(reason)...)
	}
}

func (w walker) called(n *ast.CallExpr) {
	r := row{path: w.path, at: w.files.Position(n.Pos())}
	for _, e := range n.Args {
		if value, ok := w.text(e); ok {
			r.values = append(r.values, value)
		}
	}
	w.rows = append(w.rows, r)
	switch o := w.callee(n).(type) {
	case *types.Var:
		for i, e := range n.Args {
			if t := w.info.TypeOf(e); t != nil && isText(t) {
				w.add(argument{o, i}, w.texts(e)...)
			}
		}
	case *types.Func:
		if first, ok := map[string]int{"Event": 1, "Eventf": 1, "AnnotatedEventf": 2}[o.Name()]; ok && o.Pkg() != nil && strings.HasPrefix(o.Pkg().Path(), "k8s.io/client-go/tools/") {
			w.sinks = append(w.sinks, sink{path: w.path, at: r.at, kind: w.texts(n.Args[first]), reason: w.texts(n.Args[first+1])})
		}
		if !w.ours(o) {
			return
		}
		params := w.noted(o).(*types.Func).Signature().Params()
		for i, e := range n.Args {
			if i < params.Len() {
				w.put(params.At(i), e)
			}
		}
	}
}

// named says what cannot be followed: a field of a type that is not the module's, a function, or a place in the code.
func (w walker) named(e ast.Expr) string {
	switch e := ast.Unparen(e).(type) {
	case *ast.SelectorExpr:
		if s := w.info.Selections[e]; s != nil {
			return strings.TrimPrefix(types.TypeString(s.Recv(), nil), "*") + "." + e.Sel.Name
		}
	case *ast.CallExpr:
		if f, ok := w.callee(e).(*types.Func); ok {
			return f.FullName()
		}
	}
	at := w.files.Position(e.Pos())
	return fmt.Sprintf("%s/%s:%d", w.path, filepath.Base(at.Filename), at.Line)
}

// texts are the origins of the expression's value.
func (w walker) texts(e ast.Expr) []text {
	if value, ok := w.text(e); ok {
		if value == "" {
			return nil
		}
		return []text{{constant: value}}
	}
	switch e := ast.Unparen(e).(type) {
	case *ast.Ident, *ast.SelectorExpr:
		if place := w.place(e); place != nil {
			return []text{{from: place}}
		}
	case *ast.BinaryExpr:
		if e.Op == token.ADD {
			return []text{{left: w.texts(e.X), right: w.texts(e.Y)}}
		}
	case *ast.CallExpr:
		if w.info.Types[e.Fun].IsType() {
			return w.texts(e.Args[0])
		}
		if f, ok := w.callee(e).(*types.Func); ok && f.FullName() == "cmp.Or" {
			var all []text
			for _, a := range e.Args {
				all = append(all, w.texts(a)...)
			}
			return all
		}
		return w.answer(e, 0)
	}
	return []text{{open: w.named(e)}}
}
