module bags-operator.test/cluster

go 1.24.0
