package influxdb

import (
	"bytes"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/kubetide/kubetide/internal/sample"
)

// The columns that hold the value. kube-metrics-adapter documents the first; the second is what Flux has by itself.
const (
	columnMetric = "metricvalue"
	columnValue  = "_value"
)

// queryError is an error that the server met after it had begun to answer.
type queryError struct{ message string }

func (e *queryError) Error() string { return fmt.Sprintf("the query failed: %.300q", e.message) }

// table is the head of one table in annotated CSV.
type table struct {
	types, defaults, names []string
}

// value returns the value of the first row in thousandths, and how many rows there are.
func value(answer []byte) (milli int64, rows int, err error) {
	in := csv.NewReader(bytes.NewReader(answer))
	in.FieldsPerRecord, in.ReuseRecord = -1, true
	var t table
	for {
		record, err := in.Read()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return 0, 0, errors.New("the answer is not the annotated CSV of InfluxDB 2")
		}
		switch {
		case strings.HasPrefix(record[0], "#"):
			if t.names != nil {
				t = table{}
			}
			switch record[0] {
			case "#datatype":
				t.types = slices.Clone(record)
			case "#default":
				t.defaults = slices.Clone(record)
			}
		case t.names == nil || failure(record):
			t = table{types: t.types, defaults: t.defaults, names: slices.Clone(record)}
		case failure(t.names):
			return 0, 0, &queryError{t.at(record, "error")}
		default:
			if rows++; rows == 1 {
				if milli, err = t.value(record); err != nil {
					return 0, 0, err
				}
			}
		}
	}
	if rows == 0 {
		return 0, 0, sample.NoData("the query gives no rows")
	}
	return milli, rows, nil
}

// failure says whether these columns are those of the table with which an error is told.
func failure(names []string) bool {
	return slices.Contains(names, "error") && slices.Contains(names, "reference")
}

// at returns what the row has in the column; nothing if it has none.
func (t table) at(row []string, column string) string {
	if i := slices.Index(t.names, column); i >= 0 && i < len(row) {
		return row[i]
	}
	return ""
}

func (t table) value(row []string) (int64, error) {
	name := columnMetric
	if !slices.Contains(t.names, name) {
		name = columnValue
	}
	if !slices.Contains(t.names, name) {
		return 0, fmt.Errorf("the result has neither a column %s nor %s; add |> rename(columns: {...})", columnMetric, columnValue)
	}
	switch kind := t.at(t.types, name); kind {
	case "double", "long", "unsignedLong", "":
	default:
		return 0, fmt.Errorf("the column %s is of type %.40q, not a number", name, kind)
	}
	text := t.at(row, name)
	if text == "" {
		text = t.at(t.defaults, name)
	}
	if text == "" {
		return 0, sample.NoData("the column %s of the first row is null", name)
	}
	if n, err := strconv.ParseInt(text, 10, 64); err == nil && n <= math.MaxInt64/1000 && n >= math.MinInt64/1000 {
		return n * 1000, nil // a float64 would lose digits
	}
	f, err := strconv.ParseFloat(text, 64)
	if err != nil && !errors.Is(err, strconv.ErrRange) {
		return 0, fmt.Errorf("the column %s of the first row is not a number", name)
	}
	milli, err := sample.Milli(f)
	if err != nil {
		return 0, sample.NoData("the column %s of the first row: %v", name, err)
	}
	return milli, nil
}
