import suture
from suture import zoo

train, test = zoo.digits("train"), zoo.digits("test")
network, report = zoo.train_network("resnet_digits", seed=0)
result = suture.compare(network, data=train, test=test, methods=["dm"])
print(result.matrix("dm.relative_accuracy").round(3), result.cells("dm").to_string(), sep="\n\n")
print(result.findings())
result.plot("cka").figure.savefig("cka.pdf")
result.report("report.html")
