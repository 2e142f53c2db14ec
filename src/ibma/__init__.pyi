from ibma.estimators.estimator import IBMAClassifier as IBMAClassifier
from ibma.estimators.estimator import IBMAMultilabelClassifier as IBMAMultilabelClassifier
from ibma.estimators.estimator import IBMARegressor as IBMARegressor
from ibma.estimators.loss import CLUBLoss as CLUBLoss
from ibma.estimators.loss import IBBLoss as IBBLoss
from ibma.estimators.loss import PluginIBLoss as PluginIBLoss
from ibma.estimators.loss import VIBLoss as VIBLoss

__version__: str
